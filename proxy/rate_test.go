// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"testing"
	"time"

	"sluice/accesslog"
	"sluice/config"
)

// However a direction is read, any stretch of time brings its rate and a
// second's worth at most, and who always reads gets the rate.
func TestPace(t *testing.T) {
	const s = int64(time.Second)
	for _, rate := range []int64{1, 7, 999, 64 << 10, 3 << 20, 10 << 30, 1 << 40} {
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			p := newPace(&config.Listener{DownloadRate: rate})
			dice := rand.New(rand.NewPCG(1, uint64(rate)))
			if p.room(0, 5*s) < 1<<50 {
				t.Error("the other direction is bounded")
			}
			now, total := 100*s, int64(0)
			begun := now
			for now < begun+20*s {
				n := p.room(1, now)
				if n == 0 {
					if next := p.enough(1); next <= now {
						t.Fatalf("nothing to read, and no wait")
					} else {
						now = next
					}
					if p.room(1, now) == 0 {
						t.Fatal("a wait that gave nothing")
					}
					continue
				}
				n = min(n, 1+int(dice.Uint64N(uint64(n))))
				p.take(1, n)
				total += int64(n)
				passed := float64(now-begun) / float64(s)
				if most := float64(rate) * (1 + passed); float64(total) > most+1 {
					t.Fatalf("%d bytes after %.3f s, %.0f allowed", total, passed, most)
				}
				now += int64(dice.Uint64N(3000)) * int64(time.Microsecond)
			}
			if least := 19 * rate; total < least {
				t.Errorf("%d bytes in 20 s, less than %d", total, least)
			}
		})
	}
}

// Rates are kept each way, by copying and by splice(2), and waiting wakes nobody.
func TestRates(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		rate     int64
		size     uint32
		download bool
	}{
		{"upload", 200_000, 500_000, false},
		{"download", 200_000, 500_000, true},
		{"upload in bulk", 8 << 20, 20 << 20, false},
		{"download in bulk", 8 << 20, 20 << 20, true},
	} {
		if testing.Short() && c.download == (c.rate > 1<<20) {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			datapathsAtOnce(t, func(t *testing.T, path string) {
				type result struct {
					n   uint32
					err error
				}
				got := make(chan result, 2)
				send := func(c2 net.Conn) {
					if err := sendAll(c2.(*net.TCPConn), newStream(6, 'r'), c.size, 64<<10, 0, false); err != nil {
						t.Error(err)
					}
				}
				receive := func(c2 net.Conn) {
					n, err := readAll(c2, newStream(6, 'r'), 0)
					got <- result{n, err}
				}
				up, down := receive, send
				if !c.download {
					up, down = send, receive
				}
				r := newRig(t, path, []string{serve(t, func(conn net.Conn) {
					down(conn)
					io.Copy(io.Discard, conn)
				})}, func(l *config.Listener) {
					if c.download {
						l.DownloadRate = c.rate
					} else {
						l.UploadRate = c.rate
					}
				})
				start := time.Now() // before the backend may begin to send
				conn := r.dial()
				defer conn.Close()
				wakes := r.wakes()
				up(conn)
				g := <-got
				took := time.Since(start)
				if g.n != c.size || g.err != nil {
					t.Errorf("%d bytes of %d, %v", g.n, c.size, g.err)
				}
				// A second's worth comes at once.
				least := time.Duration(float64(c.size)/float64(c.rate)*float64(time.Second)) - time.Second
				if took < least {
					t.Errorf("%v, less than %v", took, least)
				}
				// Few waits, each with its reads; what the kernel tells of room aside.
				if n := r.wakes() - wakes; c.rate < 1<<20 && n > 200 {
					t.Errorf("%d wake-ups in %v", n, took)
				}
				conn.Close()
				r.ended(1)
				r.empty()
			})
		})
	}
}

// What ends a session ends it also while it waits, and one with a rate doesn't
// enter the map.
func TestEndsDuringAWait(t *testing.T) {
	datapathsAtOnce(t, func(t *testing.T, path string) {
		slow := func(l *config.Listener) { l.UploadRate = 1 }
		t.Run("reset", func(t *testing.T) {
			r := newRig(t, path, []string{serve(t, echo)}, slow)
			c := r.dial()
			c.Write(make([]byte, 100))
			io.ReadFull(c, make([]byte, 1))
			c.SetLinger(0)
			c.Close()
			if s := r.ended(1)[0]; s.Reason != accesslog.ClientReset || s.BytesReceived > 90 {
				t.Errorf("record %+v", s)
			}
		})
		t.Run("reset by the backend", func(t *testing.T) {
			r := newRig(t, path, []string{serve(t, func(c net.Conn) {
				io.ReadFull(c, make([]byte, 1))
				c.(*net.TCPConn).SetLinger(0)
			})}, slow)
			c := r.dial()
			defer c.Close()
			c.Write(make([]byte, 100))
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client sees %v", err)
			}
			if s := r.ended(1)[0]; s.Reason != accesslog.BackendReset {
				t.Errorf("record %+v", s)
			}
		})
		t.Run("end of stream", func(t *testing.T) {
			// A hundred bytes, and then none for 1000 s: the end needs no room.
			r := newRig(t, path, []string{serve(t, echo)}, slow)
			c := r.dial()
			defer c.Close()
			c.Write([]byte("x"))
			io.ReadFull(c, make([]byte, 1))
			s := r.session()
			s.loop.call(func() { s.pace.empty[0] = s.loop.now + 1000*int64(time.Second) })
			c.CloseWrite()
			c.SetReadDeadline(time.Now().Add(30 * time.Second))
			if b, err := io.ReadAll(c); err != nil || len(b) != 0 {
				t.Errorf("%q, %v", b, err)
			}
			expect(t, r.ended(1)[0], 200, accesslog.ClientClosed, 1, 1)
		})
		t.Run("idle", func(t *testing.T) {
			r := newRig(t, path, []string{serve(t, echo)}, func(l *config.Listener) {
				slow(l)
				l.IdleTimeout = 400 * time.Millisecond
			})
			c := r.dial()
			defer c.Close()
			c.Write(make([]byte, 100))
			if s := r.ended(1)[0]; s.Reason != accesslog.IdleTimeout {
				t.Errorf("record %+v", s)
			}
		})
		t.Run("talk", func(t *testing.T) {
			r := newRig(t, path, []string{serve(t, echo)}, func(l *config.Listener) {
				l.DownloadRate = 1 << 20
				l.Datapath = config.Auto
			})
			c := r.dial()
			defer c.Close()
			warm(t, c)
			c.Close()
			s := r.ended(1)[0]
			expect(t, s, 200, accesslog.ClientClosed, warmBytes, warmBytes)
			if s.Datapath != "relay" {
				t.Errorf("on %s", s.Datapath)
			}
			want := uint64(1)
			if path == "relay" {
				want = 0
			}
			if f := r.settings.Counters.Snapshot().Fallbacks; f["rate"] != want {
				t.Errorf("fallbacks %v, want rate %d times", f, want)
			}
		})
	})
}
