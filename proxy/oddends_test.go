// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/accesslog"
	"sluice/internal/needs"
	"sluice/internal/netrig"
)

// TestReadersThatBeginLate: clients that don't read, so that windows close and are
// probed, and then do, get every byte, forwarded like others.
func TestReadersThatBeginLate(t *testing.T) {
	t.Parallel()
	needs.Offload(t)
	const clients, size = 200, 512 << 10 // more than fits a window that nobody reads from
	onDatapath(t, "offload", func(t *testing.T, path string) {
		r := newRig(t, path, []string{serve(t, func(c net.Conn) {
			c.SetDeadline(time.Now().Add(patience))
			io.CopyN(c, struct{ io.Reader }{c}, warmBytes)
			if err := sendAll(c.(*net.TCPConn), newStream(5, 'd'), size, 32<<10, 0, false); err != nil {
				t.Error(err)
			}
			io.Copy(io.Discard, c)
		})}, nil)
		var all []*net.TCPConn
		for range clients {
			c := r.dial()
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience))
			warm(t, c)
			all = append(all, c)
		}
		probes := ground(t).Backend.Count(t, "TCPWinProbe") // of a closed window
		time.Sleep(1500 * time.Millisecond)
		if n := ground(t).Backend.Count(t, "TCPWinProbe"); n == probes {
			t.Error("no window was probed")
		}
		var wg sync.WaitGroup
		for i, c := range all {
			wg.Go(func() {
				if n, err := readAll(c, newStream(5, 'd'), 0); err != nil || n != size {
					t.Errorf("client %d: %d bytes, %v", i, n, err)
				}
				c.Close()
			})
		}
		wg.Wait()
		for _, s := range r.ended(clients) {
			if s.Datapath != path || s.Status != 200 || s.BytesSent != warmBytes+size || s.BytesReceived != warmBytes {
				t.Errorf("record %+v", s)
			}
		}
		r.empty()
	})
}

// TestHalfClosedForLong: one side has ended its stream, and the other goes on, with
// pauses of more than a look of ours each second.
func TestHalfClosedForLong(t *testing.T) {
	datapathsAtOnce(t, func(t *testing.T, path string) {
		const size, pieces = 300_000, 6
		slowly := func(c *net.TCPConn, side byte) error {
			s := newStream(3, side)
			for i := range pieces {
				if _, err := io.CopyN(c, s, size/pieces); err != nil {
					return err
				}
				if i%2 == 0 {
					time.Sleep(1300 * time.Millisecond)
				}
			}
			return c.CloseWrite()
		}
		for _, who := range []string{"client", "backend"} {
			t.Run(who, func(t *testing.T) {
				t.Parallel()
				verdict := make(chan error, 1)
				ends := func(c *net.TCPConn, side byte) error { // is the first to
					if err := c.CloseWrite(); err != nil {
						return err
					}
					if n, err := readAll(c, newStream(3, side), 0); err != nil || n != size {
						return fmt.Errorf("%d bytes of %d, %w", n, size, err)
					}
					return nil
				}
				goesOn := func(c *net.TCPConn, side byte) error {
					if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
						return fmt.Errorf("%d bytes, %w", n, err)
					}
					return slowly(c, side)
				}
				r := newRig(t, path, []string{serve(t, func(conn net.Conn) {
					c := conn.(*net.TCPConn)
					io.CopyN(c, struct{ io.Reader }{c}, warmBytes)
					if who == "backend" {
						verdict <- ends(c, 'u')
					} else {
						verdict <- goesOn(c, 'd')
					}
				})}, nil)
				c := r.dial()
				defer c.Close()
				warm(t, c)
				var err error
				if who == "client" {
					err = ends(c, 'd')
				} else {
					err = goesOn(c, 'u')
				}
				if err := errors.Join(err, <-verdict); err != nil {
					t.Error(err)
				}
				s, received, sent, reason := r.ended(1)[0], uint64(warmBytes), uint64(warmBytes+size), accesslog.ClientClosed
				if who == "backend" {
					received, sent, reason = sent, received, accesslog.BackendClosed
				}
				expect(t, s, 200, reason, received, sent)
				if s.Datapath != path || s.Attempts[0].Session < 3*time.Second {
					t.Errorf("datapath %s, %v", s.Datapath, s.Attempts[0].Session)
				}
				r.empty()
			})
		}
	})
}

// TestBothCloseAtOnce: ends of stream that cross, in sessions that were forwarded, on a
// net that loses some of them.
func TestBothCloseAtOnce(t *testing.T) {
	t.Parallel()
	for _, loss := range []int{0, 2} {
		for _, v6 := range []bool{false, true} {
			t.Run(fmt.Sprintf("loss %d/IPv6 %t", loss, v6), func(t *testing.T) {
				t.Parallel()
				needs.Offload(t)
				h := elsewhere(t, netrig.Options{}, v6)
				const sessions = 40
				var mu sync.Mutex
				waiting := map[string]chan *net.TCPConn{}
				of := func(name string) chan *net.TCPConn {
					mu.Lock()
					defer mu.Unlock()
					if waiting[name] == nil {
						waiting[name] = make(chan *net.TCPConn, 1)
					}
					return waiting[name]
				}
				over := make(chan struct{})
				r := newRig(t, "offload", []string{serve(t, func(c net.Conn) {
					io.CopyN(c, struct{ io.Reader }{c}, warmBytes)
					name := make([]byte, 8) // which client it is
					if _, err := io.ReadFull(c, name); err == nil {
						of(string(name)) <- c.(*net.TCPConn)
					}
					<-over
				})}, nil)
				h.Impair(t, netrig.Impairment{Loss: loss})
				var wg sync.WaitGroup
				for i := range sessions {
					wg.Go(func() {
						c, err := r.connect()
						if err != nil {
							t.Error(err)
							return
						}
						defer c.Close()
						warm(t, c)
						name := fmt.Sprintf("%08d", i)
						if _, err := c.Write([]byte(name)); err != nil {
							t.Error(err)
							return
						}
						b := <-of(name)
						ends := []*net.TCPConn{c, b}
						begin := make(chan struct{})
						var closing sync.WaitGroup
						for _, e := range ends {
							closing.Go(func() {
								<-begin
								e.CloseWrite()
							})
						}
						close(begin)
						closing.Wait()
						for k, e := range ends {
							e.SetDeadline(time.Now().Add(patience))
							if n, err := e.Read(make([]byte, 1)); n != 0 || err != io.EOF {
								t.Errorf("end %d of %d: %d bytes, %v", k, i, n, err)
							}
						}
					})
				}
				wg.Wait()
				forwarded := 0
				for _, s := range r.ended(sessions) {
					if s.Reason != accesslog.ClientClosed && s.Reason != accesslog.BackendClosed || s.Status != 200 || s.BytesReceived != warmBytes+8 || s.BytesSent != warmBytes {
						t.Errorf("record %+v", s)
					}
					if s.Datapath == "offload" {
						forwarded++
					}
				}
				if forwarded != sessions {
					t.Errorf("%d of %d were forwarded", forwarded, sessions)
				}
				close(over)
				r.emptyWithin(patience)
			})
		}
	}
}

// TestSamePortAtOnce: a client that comes back from the same port in the same second, by
// each way in which a session that was forwarded may end, has a session of its own.
func TestSamePortAtOnce(t *testing.T) {
	t.Parallel()
	needs.Offload(t)
	for _, v6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("IPv6 %t", v6), func(t *testing.T) {
			t.Parallel()
			h := elsewhere(t, netrig.Options{}, v6)
			r := newRig(t, "offload", []string{serve(t, func(c net.Conn) {
				io.CopyN(c, struct{ io.Reader }{c}, warmBytes)
				var how [1]byte
				c.Read(how[:])
				if how[0] == 'r' {
					c.(*net.TCPConn).SetLinger(0)
				}
			})}, nil)
			from := netip.AddrPortFrom(h.of(h.Client)[0], 2345)
			n := 0
			for range 8 {
				for how, want := range map[byte]accesslog.EndReason{'c': accesslog.BackendClosed, 'r': accesslog.BackendReset, 'l': accesslog.ClientReset} {
					c := dialFrom(t, h.Client, from, r.front.Addr())
					warm(t, c)
					if how == 'l' {
						c.SetLinger(0)
					} else {
						c.Write([]byte{how})
						if _, err := c.Read(make([]byte, 1)); err != io.EOF && !errors.Is(err, syscall.ECONNRESET) {
							t.Error(err)
						}
					}
					c.Close()
					n++
					s := r.ended(n)[n-1]
					if s.Reason != want || s.Datapath != "offload" || s.Client.AddrPort.Port() != from.Port() {
						t.Errorf("session %d from %s: %s, %s; want %s", n, s.Client.AddrPort, s.Reason, s.Datapath, want)
					}
				}
			}
			r.empty()
		})
	}
}

// dialFrom connects from an address that may have been in use just now.
func dialFrom(t *testing.T, h *netrig.Host, from, to netip.AddrPort) (c *net.TCPConn) {
	t.Helper()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(from), Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { rawSetInt(int32(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
	}}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, h.Do(func() error {
		any, err := d.DialContext(ctx, "tcp", to.String())
		if err == nil {
			c = any.(*net.TCPConn)
		}
		return err
	}))
	c.SetDeadline(time.Now().Add(patience))
	return c
}
