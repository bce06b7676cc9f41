// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/config"
	"sluice/stats"
)

func expect(t *testing.T, s stats.Session, status int, reason stats.EndReason, received, sent uint64) {
	t.Helper()
	if s.Status != status || s.Reason != reason || s.BytesReceived != received || s.BytesSent != sent {
		t.Errorf("got %d %s received %d sent %d, want %d %s %d %d", s.Status, s.Reason, s.BytesReceived, s.BytesSent, status, reason, received, sent)
	}
}

// The warm-up moves 320 bytes each way.
const warmBytes = 40 * 8

func TestHalfCloseFromClient(t *testing.T) {
	datapaths(t, func(t *testing.T, path string) {
		r := newRig(t, path, []string{serve(t, func(c net.Conn) {
			n, _ := io.CopyN(c, struct{ io.Reader }{c}, warmBytes)
			rest, _ := io.ReadAll(c)
			fmt.Fprintf(c, "%d+%d", n, len(rest))
		})}, nil)
		c := r.dial()
		defer c.Close()
		warm(t, c)
		c.Write([]byte("question"))
		c.CloseWrite()
		got, err := io.ReadAll(c)
		if err != nil || string(got) != "320+8" {
			t.Fatalf("%q, %v", got, err)
		}
		s := r.ended(1)[0]
		expect(t, s, 200, stats.ClientClosed, warmBytes+8, warmBytes+5)
		if s.Datapath != path {
			t.Errorf("datapath %s", s.Datapath)
		}
		a := s.Attempts[0]
		if !a.Connected || a.BytesSent != s.BytesReceived || a.BytesReceived != s.BytesSent {
			t.Errorf("attempt %+v", a)
		}
	})
}

func TestHalfCloseFromBackend(t *testing.T) {
	datapaths(t, func(t *testing.T, path string) {
		got := make(chan string, 1)
		r := newRig(t, path, []string{serve(t, func(c net.Conn) {
			io.CopyN(c, struct{ io.Reader }{c}, warmBytes)
			c.Write([]byte("bye"))
			c.(*net.TCPConn).CloseWrite()
			b, _ := io.ReadAll(c)
			got <- string(b)
		})}, nil)
		c := r.dial()
		defer c.Close()
		warm(t, c)
		if b, err := io.ReadAll(c); err != nil || string(b) != "bye" {
			t.Fatalf("%q, %v", b, err)
		}
		c.Write([]byte("after the end"))
		c.CloseWrite()
		if b := <-got; b != "after the end" {
			t.Fatalf("backend got %q", b)
		}
		expect(t, r.ended(1)[0], 200, stats.BackendClosed, warmBytes+13, warmBytes+3)
	})
}

func TestResetByClient(t *testing.T) {
	datapaths(t, func(t *testing.T, path string) {
		seen := make(chan error, 1)
		r := newRig(t, path, []string{serve(t, func(c net.Conn) {
			_, err := io.Copy(struct{ io.Writer }{c}, c)
			seen <- err
		})}, nil)
		c := r.dial()
		warm(t, c)
		c.SetLinger(0)
		c.Close()
		if err := <-seen; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("backend saw %v, not a reset", err)
		}
		expect(t, r.ended(1)[0], 200, stats.ClientReset, warmBytes, warmBytes)
	})
}

func TestResetByBackend(t *testing.T) {
	datapaths(t, func(t *testing.T, path string) {
		r := newRig(t, path, []string{serve(t, func(c net.Conn) {
			io.CopyN(c, struct{ io.Reader }{c}, warmBytes)
			c.(*net.TCPConn).SetLinger(0)
		})}, nil)
		c := r.dial()
		defer c.Close()
		warm(t, c)
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("client saw %v, not a reset", err)
		}
		expect(t, r.ended(1)[0], 200, stats.BackendReset, warmBytes, warmBytes)
	})
}

func TestIdleTimeout(t *testing.T) {
	datapaths(t, func(t *testing.T, path string) {
		r := newRig(t, path, []string{serve(t, echo)}, func(c *config.Listener) { c.IdleTimeout = 1500 * time.Millisecond })
		c := r.dial()
		defer c.Close()
		warm(t, c)
		// Traffic keeps it alive, also such as userspace never sees.
		b := make([]byte, 1)
		for range 6 {
			time.Sleep(400 * time.Millisecond)
			c.Write(b)
			if _, err := io.ReadFull(c, b); err != nil {
				t.Fatalf("cut while it was active: %v", err)
			}
		}
		quiet := time.Now()
		if n, err := c.Read(b); n != 0 || err != io.EOF {
			t.Fatalf("%d %v", n, err)
		}
		if d := time.Since(quiet); d < 1400*time.Millisecond {
			t.Errorf("ended after %v", d)
		}
		expect(t, r.ended(1)[0], 200, stats.IdleTimeout, warmBytes+6, warmBytes+6)
	})
}

func TestIdleWithoutAByte(t *testing.T) {
	r := newRig(t, "relay", []string{serve(t, echo)}, func(c *config.Listener) { c.IdleTimeout = 200 * time.Millisecond })
	c := r.dial()
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(err)
	}
	s := r.ended(1)[0]
	expect(t, s, 200, stats.IdleTimeout, 0, 0)
	if s.Datapath != "relay" {
		t.Errorf("datapath %q", s.Datapath)
	}
}

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
	expect(t, s, 200, stats.ClientClosed, 5, 5)
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
	expect(t, all[0], 502, stats.ConnectFailed, 0, 0)
	expect(t, all[1], 502, stats.NoBackend, 0, 0)
	if len(all[0].Attempts) != 2 || len(all[1].Attempts) != 1 || all[1].Attempts[0].Addr != "pool" {
		t.Errorf("attempts %+v then %+v", all[0].Attempts, all[1].Attempts)
	}
}

// full is a listener that accepts nobody: its queue is full, so that further
// connects hang.
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

// A client that leaves while we connect: the attempt goes on, and what the
// client sent is delivered.
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
	expect(t, r.ended(1)[0], 200, stats.ClientClosed, 10, 0)
}

func TestAdmission(t *testing.T) {
	prefix := netip.MustParsePrefix
	tests := []struct {
		name   string
		change func(*config.Listener)
		status int
		reason stats.EndReason
	}{
		{"deny", func(c *config.Listener) { c.Deny = []netip.Prefix{prefix("127.0.0.0/8")} }, 403, stats.Denied},
		{"not in allow", func(c *config.Listener) { c.Allow = []netip.Prefix{prefix("198.18.0.0/15")} }, 403, stats.Denied},
		{"allow before deny", func(c *config.Listener) {
			c.Allow = []netip.Prefix{prefix("127.0.0.1/32")}
			c.Deny = []netip.Prefix{prefix("0.0.0.0/0")}
		}, 200, stats.ClientClosed},
		{"not in deny", func(c *config.Listener) { c.Deny = []netip.Prefix{prefix("198.18.0.0/15")} }, 200, stats.ClientClosed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, "relay", []string{serve(t, echo)}, tt.change)
			c := r.dial()
			c.CloseWrite()
			io.ReadAll(c)
			c.Close()
			s := r.ended(1)[0]
			expect(t, s, tt.status, tt.reason, 0, 0)
			if tt.status != 200 && (len(s.Attempts) != 0 || s.Datapath != "") {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	for name, change := range map[string]func(*config.Listener){
		"listener": func(c *config.Listener) { c.MaxConns = 3 },
		"address":  func(c *config.Listener) { c.MaxConnsPerIP = 3 },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "relay", []string{serve(t, echo)}, change)
			var held []net.Conn
			b := make([]byte, 1)
			for range 3 {
				c := r.dial()
				c.Write(b)
				if _, err := io.ReadFull(c, b); err != nil {
					t.Fatal(err)
				}
				held = append(held, c)
			}
			c := r.dial()
			if _, err := c.Read(b); err == nil {
				t.Error("a fourth session was let in")
			}
			c.Close()
			expect(t, r.ended(1)[0], 503, stats.Limited, 0, 0)
			held[0].Close()
			r.ended(2)
			c = r.dial()
			c.Write(b)
			if _, err := io.ReadFull(c, b); err != nil {
				t.Errorf("the place of one that left isn't free: %v", err)
			}
			c.Close()
			for _, c := range held {
				c.Close()
			}
		})
	}
}

func TestAcceptHeader(t *testing.T) {
	v2 := appendV2(nil, netip.MustParseAddrPort("198.18.0.9:1234"), netip.MustParseAddrPort("198.18.0.1:80"))
	tests := []struct {
		name, head string
		status     int
		reason     stats.EndReason
		client     string
	}{
		{"v1", "PROXY TCP4 198.18.0.9 198.18.0.1 1234 80\r\n", 200, stats.ClientClosed, "198.18.0.9:1234"},
		{"v2", string(v2), 200, stats.ClientClosed, "198.18.0.9:1234"},
		{"unknown", "PROXY UNKNOWN\r\n", 200, stats.ClientClosed, ""},
		{"none", "hello world, this is no header\r\n", 400, stats.BadHeader, ""},
		{"cut short", "PROXY TC", 400, stats.BadHeader, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, "relay", []string{serve(t, echo)}, func(c *config.Listener) { c.ProxyAccept = true })
			c := r.dial()
			defer c.Close()
			for _, piece := range []string{tt.head[:5], tt.head[5:] + "payload"} {
				c.Write([]byte(piece))
				time.Sleep(20 * time.Millisecond)
			}
			c.CloseWrite()
			b, _ := io.ReadAll(c)
			s := r.ended(1)[0]
			if tt.status != 200 {
				expect(t, s, tt.status, tt.reason, 0, 0)
				return
			}
			expect(t, s, 200, tt.reason, 7, 7)
			if string(b) != "payload" {
				t.Errorf("got %q", b)
			}
			if got := s.Client.AddrPort.String(); tt.client != "" && got != tt.client {
				t.Errorf("client %s", got)
			}
			if s.ProxyAddr.IsValid() != (tt.client != "") {
				t.Errorf("proxy address %v", s.ProxyAddr)
			}
		})
	}
}

func TestSendHeader(t *testing.T) {
	datapaths(t, func(t *testing.T, path string) {
		for _, kind := range []config.ProxyHeader{config.ProxyV1, config.ProxyV2} {
			head := make(chan netip.AddrPort, 1)
			r := newRig(t, path, []string{serve(t, func(c net.Conn) {
				br := bufio.NewReader(c)
				b, _ := br.Peek(28)
				if kind == config.ProxyV1 {
					line, _ := br.Peek(br.Buffered())
					b = line[:strings.Index(string(line), "\n")+1]
				}
				src, _, n, err := parseHeader(b)
				if err != nil {
					t.Errorf("%q: %v", b, err)
				}
				br.Discard(n)
				head <- src
				io.Copy(struct{ io.Writer }{c}, br)
			})}, func(c *config.Listener) { c.ProxySend = kind })
			c := r.dial()
			warm(t, c)
			if src := <-head; src.String() != c.LocalAddr().String() {
				t.Errorf("%s: backend was told %v, not %v", kind, src, c.LocalAddr())
			}
			c.CloseWrite()
			io.ReadAll(c)
			c.Close()
			s := r.ended(1)[0]
			expect(t, s, 200, stats.ClientClosed, warmBytes, warmBytes)
			if s.Attempts[0].BytesSent <= warmBytes {
				t.Errorf("the header isn't counted: %+v", s.Attempts[0])
			}
		}
	})
}

func TestUnixBothEnds(t *testing.T) {
	dir := t.TempDir()
	r := newRig(t, "relay", []string{serveOn(t, "unix", filepath.Join(dir, "b"), echo)}, nil)
	front, err := r.engine.Bind(config.Address{Path: filepath.Join(dir, "f")}, 16, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	front.Serve(r.settings)
	c, err := net.Dial("unix", filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	warm(t, c)
	c.(*net.UnixConn).CloseWrite()
	io.ReadAll(c)
	c.Close()
	s := r.ended(1)[0]
	expect(t, s, 200, stats.ClientClosed, warmBytes, warmBytes)
	if !s.Client.Unix || !strings.HasPrefix(s.Attempts[0].Addr, "unix:") {
		t.Errorf("%+v", s)
	}
	if _, err := r.engine.Bind(config.Address{Path: filepath.Join(dir, "f")}, 16, 0, false); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second owner: %v", err)
	}
	front.Close()
	<-front.Done()
}

func TestOnePortOneOwner(t *testing.T) {
	r := newRig(t, "relay", []string{serve(t, echo)}, nil)
	other, err := New(Options{Loops: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	a := r.front.Addr()
	_, err = other.Bind(config.Address{Addr: a.Addr(), Port: a.Port()}, 16, 0, false)
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second owner: %v", err)
	}
}

func TestCutAtShutdown(t *testing.T) {
	datapaths(t, func(t *testing.T, path string) {
		r := newRig(t, path, []string{serve(t, echo)}, nil)
		c := r.dial()
		defer c.Close()
		warm(t, c)
		r.engine.ResetAll()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("client saw %v", err)
		}
		expect(t, r.ended(1)[0], 200, stats.Shutdown, warmBytes, warmBytes)
	})
}

func TestFrontServesItsQueue(t *testing.T) {
	r := newRig(t, "relay", []string{serve(t, echo)}, nil)
	var cs []net.Conn
	for range 50 {
		cs = append(cs, r.dial())
	}
	r.front.Close()
	<-r.front.Done()
	for _, c := range cs {
		warm(t, c)
		c.Close()
	}
	r.ended(50)
}

func TestDescriptorLimit(t *testing.T) {
	r := newRigOf(t, "relay", []string{serve(t, echo)}, nil, Options{Loops: 2, MaxSessionFDs: 8})
	var cs []net.Conn
	for range 6 {
		c := r.dial()
		c.Write([]byte("x"))
		cs = append(cs, c)
	}
	b := make([]byte, 1)
	var served, waiting []net.Conn
	for _, c := range cs {
		c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		if _, err := io.ReadFull(c, b); err == nil {
			served = append(served, c)
		} else {
			waiting = append(waiting, c)
		}
	}
	if len(served) != 4 {
		t.Errorf("%d served within a limit of 4", len(served))
	}
	for _, c := range served {
		c.Close()
	}
	for _, c := range waiting {
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.ReadFull(c, b); err != nil {
			t.Errorf("not served once there was room: %v", err)
		}
		c.Close()
	}
	r.ended(6)
}
