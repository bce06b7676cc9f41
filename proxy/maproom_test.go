// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/accesslog"
)

// until waits for something of a session to become true.
func (r *rig) until(s *pair, what string, f func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(2 * time.Millisecond) {
		var ok bool
		s.loop.call(func() { ok = f() })
		if ok {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: not in a minute; sessions:\n%s", what, r.left())
		}
	}
}

// Both sides write and neither reads for a while: both are held up before long,
// and what they have written arrives once they read. Sockets have little room, as
// toward a distant peer: what the program redirects doesn't fit into them.
func TestBothWriteAndNobodyReads(t *testing.T) {
	const size, bound = 96 << 20, 32 << 20
	sysctl(t, "tcp_wmem", "4096 16384 131072")
	datapaths(t, func(t *testing.T, path string) {
		read, ended := make(chan struct{}), make(chan error, 1)
		play := func(c net.Conn, out, in byte) error {
			sent := make(chan error, 1)
			go func() { sent <- sendAll(c.(*net.TCPConn), newStream(2, out), size, 64<<10, 0, false) }()
			<-read
			n, err := readAll(c, newStream(2, in), 0)
			if err == nil && n != size {
				err = fmt.Errorf("%d bytes of %d", n, size)
			}
			if e := <-sent; err == nil {
				err = e
			}
			return err
		}
		r := newRig(t, path, []string{serve(t, func(c net.Conn) {
			io.CopyN(c, struct{ io.Reader }{c}, warmBytes)
			ended <- play(c, 'd', 'u')
		})}, nil)
		c := r.dial()
		defer c.Close()
		c.SetDeadline(time.Now().Add(60 * time.Second))
		warm(t, c)
		s := r.session()
		go func() { ended <- play(c, 'u', 'd') }()
		time.Sleep(time.Second)
		r.until(s, "held up", func() bool {
			for i, e := range s.ends() {
				waits := e.in - e.other().out
				if m, ok := s.mover.(*splicer); ok {
					waits = m.dir[i].shared.Passed() - m.dir[i].read
				}
				if waits > bound {
					t.Errorf("%d bytes wait in direction %d: no bound", waits, i)
				}
			}
			return true
		})
		close(read)
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		c.Close()
		if rec := r.ended(1)[0]; rec.Status != 200 || rec.Reason == accesslog.Internal || rec.BytesReceived != size+warmBytes || rec.BytesSent != size+warmBytes {
			t.Errorf("%+v", rec)
		}
	})
}

// A client that sends all of its bytes before it reads any, before a backend that
// never stops writing: its bytes arrive. One direction doesn't wait for the other.
func TestUploadBesideADownloadThatWaits(t *testing.T) {
	const size = 8 << 20
	sysctl(t, "tcp_rmem", "4096 131072 262144")
	sysctl(t, "tcp_wmem", "4096 16384 65536")
	datapaths(t, func(t *testing.T, path string) {
		up := make(chan error, 1)
		r := newRig(t, path, []string{serve(t, func(c net.Conn) {
			io.CopyN(c, struct{ io.Reader }{c}, warmBytes)
			go func() {
				_, err := readAll(io.LimitReader(c, size), newStream(4, 'u'), 0)
				up <- err
			}()
			b := make([]byte, 100)
			for {
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		})}, nil)
		upload := func() error {
			c := r.dial()
			defer c.Close()
			warm(t, c)
			c.SetWriteDeadline(time.Now().Add(time.Minute / 3))
			n, err := io.CopyN(struct{ io.Writer }{c}, newStream(4, 'u'), size)
			if err != nil {
				err = fmt.Errorf("%d bytes of %d sent: %w; sessions:\n%s", n, size, err, r.left())
				c.SetLinger(0)
				c.Close()
			}
			select {
			case other := <-up:
				return cmp.Or(err, other)
			case <-time.After(time.Minute):
				t.Fatalf("not all of it arrives, nor an end; sessions:\n%s", r.left())
			}
			return nil
		}
		for try := 1; ; try++ {
			refused := beyondWindow(t)
			err := upload()
			if err == nil {
				return
			}
			if try == 4 || beyondWindow(t) == refused {
				t.Fatal(err)
			}
			t.Logf("a stack of the two ends refused acknowledgements, on its own account: again (%v)", err)
		}
	})
}

// beyondWindow counts the segments that the stacks of a test's hosts refused for
// lying beyond their windows, acknowledgements included. A stack whose buffer is full may drop
// what it had a window for and tell one of 0 (seen on Linux 6.18); what comes after the
// dropped bytes then counts as beyond it. With both directions full that lasts for ever,
// also between two hosts without a balancer (1 of 150 such uploads over a veth pair).
// A kernel without the counter gets no second try.
func beyondWindow(t *testing.T) (n uint64) {
	t.Helper()
	count := func() error {
		b, err := os.ReadFile("/proc/thread-self/net/netstat")
		lines := strings.Split(string(b), "\n")
		for i := 0; i+1 < len(lines); i += 2 { // names and values
			names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
			if k := slices.Index(names, "BeyondWindow"); k > 0 {
				v, err := strconv.ParseUint(values[k], 10, 64)
				n += v
				return err
			}
		}
		return err
	}
	err := count()
	if h := ground(t); h != nil {
		err = errors.Join(err, h.Client.Do(count), h.Backend.Do(count))
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// What was redirected enters a socket that has become too small for it and whose
// peer reads nothing: it would wait for ever, and what the socket passes behind it.
func TestRoomIsMadeAgain(t *testing.T) {
	needSplice(t)
	const size = 600 << 10 // less than the mark, so that no take-over makes room
	sysctl(t, "tcp_rmem", "4096 16384 32768")
	sysctl(t, "tcp_wmem", "4096 16384 65536")
	r := newRig(t, "splice", []string{serve(t, func(c net.Conn) {
		io.CopyN(c, struct{ io.Reader }{c}, warmBytes)
		for b := make([]byte, 4096); ; {
			if _, err := io.ReadFull(c, b[:1]); err != nil {
				return
			}
			for n := 0; n < size; n += len(b) {
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		}
	})}, nil)
	c := r.dial()
	defer c.Close()
	warm(t, c)
	s := r.session()
	if _, err := c.Write([]byte{0}); err != nil {
		t.Fatal(err)
	}
	var redirected uint64
	r.until(s, "all of it enters the client's socket", func() bool {
		m, ok := s.mover.(*splicer)
		if !ok {
			return false
		}
		redirected = m.dir[1].shared.Redirected()
		return redirected >= size && m.drained(&m.dir[1])
	})
}
