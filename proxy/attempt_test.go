// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/accesslog"
	"sluice/config"
)

func TestNextUpstream(t *testing.T) {
	dead := refusing(t)
	r := newRig(t, "relay", []string{dead, serve(t, echo)}, nil)
	c := r.dial()
	c.Write([]byte("hello"))
	c.CloseWrite()
	if b, _ := io.ReadAll(c); string(b) != "hello" {
		t.Fatalf("%q", b)
	}
	c.Close()
	s := r.ended(1)[0]
	expect(t, s, 200, accesslog.ClientClosed, 5, 5)
	if len(s.Attempts) != 2 || s.Attempts[0].Addr != dead || s.Attempts[0].Connected || s.Attempts[0].BytesSent != 0 || s.Attempts[1].BytesSent != 5 {
		t.Errorf("attempts %+v", s.Attempts)
	}
}

func TestAllRefusedThenEjected(t *testing.T) {
	r := newRig(t, "relay", []string{refusing(t), refusing(t)}, nil)
	for range 2 {
		c := r.dial()
		io.ReadAll(c)
		c.Close()
	}
	all := r.ended(2)
	expect(t, all[0], 502, accesslog.ConnectFailed, 0, 0)
	expect(t, all[1], 502, accesslog.NoBackend, 0, 0)
	if len(all[0].Attempts) != 2 || len(all[1].Attempts) != 1 || all[1].Attempts[0].Addr != "pool" {
		t.Errorf("attempts %+v then %+v", all[0].Attempts, all[1].Attempts)
	}
}

func full(t *testing.T) string {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	addr := localAddr(int32(fd)).String()
	for range 3 {
		if c, err := net.DialTimeout("tcp", addr, 50*time.Millisecond); err == nil {
			t.Cleanup(func() { c.Close() })
		}
	}
	return addr
}

func TestConnectTimeout(t *testing.T) {
	r := newRig(t, "relay", []string{full(t), serve(t, echo)}, func(c *config.Listener) { c.ConnectTimeout = 200 * time.Millisecond })
	c := r.dial()
	defer c.Close()
	c.Write([]byte("hello"))
	c.CloseWrite()
	if b, err := io.ReadAll(c); string(b) != "hello" {
		t.Fatalf("%q %v", b, err)
	}
	s := r.ended(1)[0]
	if len(s.Attempts) != 2 || s.Attempts[0].Connected || s.Attempts[0].Session < 200*time.Millisecond {
		t.Errorf("attempts %+v", s.Attempts)
	}
}

func TestClientLeavesWhileConnecting(t *testing.T) {
	got := make(chan string, 1)
	late := serve(t, func(c net.Conn) {
		b, _ := io.ReadAll(c)
		got <- string(b)
	})
	r := newRig(t, "relay", []string{full(t), late}, func(c *config.Listener) { c.ConnectTimeout = 300 * time.Millisecond })
	c := r.dial()
	c.Write([]byte("last words"))
	c.Close()
	if b := <-got; b != "last words" {
		t.Errorf("%q", b)
	}
	expect(t, r.ended(1)[0], 200, accesslog.ClientClosed, 10, 0)
}

// TestClientEndsWhileConnecting: with a PROXY header the client's socket is
// watched from the start, and epoll says only once that it has ended.
func TestClientEndsWhileConnecting(t *testing.T) {
	for _, tt := range []struct {
		name   string
		end    func(*net.TCPConn)
		reason accesslog.EndReason
	}{
		{"fin", func(c *net.TCPConn) { c.CloseWrite() }, accesslog.ClientClosed},
		{"reset", func(c *net.TCPConn) { c.SetLinger(0); c.Close() }, accesslog.ClientReset},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := make(chan string, 1)
			late := serve(t, func(c net.Conn) {
				b, _ := io.ReadAll(c)
				got <- string(b)
			})
			r := newRig(t, "relay", []string{full(t), late}, func(c *config.Listener) {
				c.ProxyAccept = true
				c.ConnectTimeout = 300 * time.Millisecond
				c.IdleTimeout = 3 * time.Second
			})
			c := r.dial()
			defer c.Close()
			c.Write([]byte("PROXY TCP4 198.18.0.9 198.18.0.1 1234 80\r\n"))
			time.Sleep(50 * time.Millisecond) // the first attempt is under way
			c.Write([]byte("last words"))
			tt.end(c)
			if b := <-got; b != "last words" {
				t.Errorf("the backend got %q", b)
			}
			expect(t, r.ended(1)[0], 200, tt.reason, 10, 0)
		})
	}
}
