// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"sluice/config"
	"sluice/pool"
)

// limited is a rig with one of the three limits that keep a session out.
func limited(t *testing.T, limit string, n int, path, backend string, loops int) *rig {
	t.Helper()
	r := newRigOf(t, path, []string{backend}, func(c *config.Listener) {
		switch limit {
		case "listener":
			c.MaxConns = n
		case "address":
			c.MaxConnsPerIP = n
		}
	}, Options{Loops: loops})
	if limit == "backend" {
		s := specs([]string{backend})
		s[0].MaxConns = n
		r.pool.Apply(pool.Options{Balance: config.RoundRobin}, s, time.Now())
	}
	return r
}

// TestInTurn: clients that each wait for the end of one session before they
// begin the next are never refused, whichever side ends it and however, and
// whichever loop has the old session and the new one.
func TestInTurn(t *testing.T) {
	each := 30
	if testing.Short() {
		each = 10
	}
	one := make([]byte, 1)
	ends := map[string]struct {
		backend func(net.Conn)
		client  func(*net.TCPConn) error
	}{
		// The client sees the backend's end, and closes.
		"backend closes": {
			func(c net.Conn) { io.ReadFull(c, make([]byte, 1)); c.Write(one) },
			func(c *net.TCPConn) error {
				_, err := io.ReadAll(c)
				return err
			},
		},
		// The client closes after the backend did, with a last word.
		"a last word": {
			func(c net.Conn) {
				io.ReadFull(c, make([]byte, 1))
				c.Write(one)
				c.(*net.TCPConn).CloseWrite()
				io.Copy(io.Discard, c)
			},
			func(c *net.TCPConn) error {
				if _, err := io.ReadAll(c); err != nil {
					return err
				}
				_, err := c.Write(make([]byte, 100))
				return err
			},
		},
		"client resets": {
			func(c net.Conn) { io.ReadFull(c, make([]byte, 1)); c.Write(one); io.Copy(io.Discard, c) },
			func(c *net.TCPConn) error {
				_, err := io.ReadFull(c, make([]byte, 1))
				c.SetLinger(0)
				return err
			},
		},
	}
	datapaths(t, func(t *testing.T, path string) {
		for _, limit := range []string{"listener", "address", "backend"} {
			for end, how := range ends {
				for _, loops := range []int{2, 4} {
					for _, clients := range []int{1, 3} {
						t.Run(fmt.Sprintf("%s/%s/%d loops/%d clients", limit, end, loops, clients), func(t *testing.T) {
							r := limited(t, limit, clients, path, serve(t, warmed(path, how.backend)), loops)
							if loops == 4 { // what the first one accepts goes to another
								r.engine.loops[0].load.Add(100)
							}
							var wg sync.WaitGroup
							for range clients {
								wg.Go(func() {
									for i := range each {
										if err := inTurn(t, r, path, how.client); err != nil {
											t.Errorf("session %d: %v", i, err)
											return
										}
									}
								})
							}
							wg.Wait()
							if t.Failed() {
								return
							}
							r.empty()
							nothingAsked(t, r)
							for _, s := range r.ended(each * clients) {
								if s.Status != 200 {
									t.Fatalf("%d %s", s.Status, s.Reason)
								}
								if s.Datapath != path && end != "client resets" {
									t.Fatalf("a session was moved by %s", s.Datapath)
								}
							}
						})
					}
				}
			}
		}
	})
}

// TestCrowdIsNoQueue: where a place stays taken a crowd is refused, soon, and
// leaves nothing behind.
func TestCrowdIsNoQueue(t *testing.T) {
	for limit, status := range map[string]int{"listener": 503, "address": 503, "backend": 502} {
		t.Run(limit, func(t *testing.T) {
			r := limited(t, limit, 1, "relay", serve(t, echo), 2)
			holder := r.dial()
			defer holder.Close()
			warm(t, holder)
			const crowd = 200
			var wg sync.WaitGroup
			for range crowd {
				wg.Go(func() {
					c, err := net.Dial("tcp", r.front.Addr().String())
					if err != nil {
						t.Error(err)
						return
					}
					defer c.Close()
					c.SetDeadline(time.Now().Add(20 * time.Second))
					if n, err := c.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("%d bytes, %v", n, err)
					}
				})
			}
			wg.Wait()
			for _, s := range r.ended(crowd) {
				if s.Status != status || s.BytesSent != 0 {
					t.Fatalf("%d %s", s.Status, s.Reason)
				}
			}
			warm(t, holder)
			holder.Close()
			r.ended(crowd + 1)
			c := r.dial()
			defer c.Close()
			warm(t, c)
			nothingAsked(t, r)
		})
	}
}

// TestParting: a session whose client has just sent its end of stream seems to
// be about to end, for a while; one that has ended doesn't.
func TestParting(t *testing.T) {
	datapaths(t, func(t *testing.T, path string) {
		heard := make(chan struct{}, 1)
		release := make(chan struct{})
		r := newRigOf(t, path, []string{serve(t, func(c net.Conn) {
			echo(c)
			heard <- struct{}{}
			<-release
		})}, nil, Options{Loops: 1})
		l := r.engine.loops[0]
		ending := func(ago time.Duration) (yes bool) {
			l.call(func() {
				for i := range l.parting {
					l.parting[i].at = l.now - int64(ago)
				}
				yes = l.someEnding()
			})
			return yes
		}
		c := r.dial()
		defer c.Close()
		warm(t, c)
		if ending(0) {
			t.Error("a session in mid-life seems to be ending")
		}
		c.CloseWrite()
		<-heard
		// The ends of forwarded sessions are found in their records.
		if !ending(0) && path != "offload" {
			t.Error("its client's end of stream isn't noticed")
		}
		if ending(partingTime) || ending(0) {
			t.Error("a half-closed session seems to be ending for ever")
		}
		d := r.dial()
		warm(t, d)
		d.CloseWrite()
		<-heard
		close(release)
		io.ReadAll(c)
		io.ReadAll(d)
		d.Close()
		r.ended(2)
		if ending(0) {
			t.Error("one that has ended seems to be ending")
		}
		// Nobody asks, and the list stays short all the same.
		for range 200 {
			inTurn(t, r, "relay", func(c *net.TCPConn) error { c.CloseWrite(); _, err := io.ReadAll(c); return err })
			<-heard
		}
		r.ended(202)
		l.call(func() {
			if len(l.parting) > 64 {
				t.Errorf("%d are kept", len(l.parting))
			}
		})
	})
}

// nothingAsked checks that no loop has a question, or a session that is ending.
func nothingAsked(t *testing.T, r *rig) {
	t.Helper()
	for _, l := range r.engine.loops {
		l.call(func() {
			if l.ending != 0 || l.asking || len(l.askers)+len(l.asked)+len(l.due) != 0 {
				t.Errorf("loop %d: %d ending, asking %t, %d %d %d", l.id, l.ending, l.asking, len(l.askers), len(l.asked), len(l.due))
			}
		})
	}
}

// warmed is a backend that echoes until the session may be in the map.
func warmed(path string, h func(net.Conn)) func(net.Conn) {
	if path == "relay" {
		return h
	}
	return func(c net.Conn) {
		io.CopyN(struct{ io.Writer }{c}, c, warmBytes)
		h(c)
	}
}

func inTurn(t *testing.T, r *rig, path string, end func(*net.TCPConn) error) error {
	c, err := r.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if path != "relay" {
		b := make([]byte, 8)
		for range warmBytes / 8 {
			if _, err := c.Write(b); err != nil {
				return err
			}
			if _, err := io.ReadFull(c, b); err != nil {
				return err
			}
		}
	}
	if _, err := c.Write(make([]byte, 1)); err != nil {
		return err
	}
	return end(c)
}
