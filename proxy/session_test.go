// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/accesslog"
	"sluice/config"
)

func expect(t *testing.T, s accesslog.Record, status int, reason accesslog.EndReason, received, sent uint64) {
	t.Helper()
	if s.Status != status || s.Reason != reason || s.BytesReceived != received || s.BytesSent != sent {
		t.Errorf("got %d %s received %d sent %d, want %d %s %d %d", s.Status, s.Reason, s.BytesReceived, s.BytesSent, status, reason, received, sent)
	}
}

// expectReset is expect for a session that was reset after the warm-up. Bytes of a
// forwarded one count once they are acknowledged, which the last message may not be.
func expectReset(t *testing.T, path string, s accesslog.Record, reason accesslog.EndReason) {
	t.Helper()
	if path == "offload" {
		for _, n := range []*uint64{&s.BytesReceived, &s.BytesSent} {
			if *n == warmBytes-8 {
				*n = warmBytes
			}
		}
	}
	expect(t, s, 200, reason, warmBytes, warmBytes)
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
		expect(t, s, 200, accesslog.ClientClosed, warmBytes+8, warmBytes+5)
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
		expect(t, r.ended(1)[0], 200, accesslog.BackendClosed, warmBytes+13, warmBytes+3)
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
		expectReset(t, path, r.ended(1)[0], accesslog.ClientReset)
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
		expectReset(t, path, r.ended(1)[0], accesslog.BackendReset)
	})
}

func TestIdleTimeout(t *testing.T) {
	datapathsAtOnce(t, func(t *testing.T, path string) {
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
		if n, err := c.Read(b); n != 0 || !errors.Is(err, endOfOurs(path)) {
			t.Fatalf("%d %v", n, err)
		}
		if d := time.Since(quiet); d < 1400*time.Millisecond {
			t.Errorf("ended after %v", d)
		}
		expect(t, r.ended(1)[0], 200, accesslog.IdleTimeout, warmBytes+6, warmBytes+6)
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
	expect(t, s, 200, accesslog.IdleTimeout, 0, 0)
	if s.Datapath != "relay" {
		t.Errorf("datapath %q", s.Datapath)
	}
}

// full is a listener that accepts nobody: its queue is full, so that further

// connects hang.

// A client that leaves while we connect: the attempt goes on, and what the

// client sent is delivered.

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
	expect(t, s, 200, accesslog.ClientClosed, warmBytes, warmBytes)
	if !s.Client.Unix || !strings.HasPrefix(s.Attempts[0].Addr, "unix:") {
		t.Errorf("%+v", s)
	}
	if _, err := r.engine.Bind(config.Address{Path: filepath.Join(dir, "f")}, 16, 0, false); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second owner: %v", err)
	}
	front.Close(time.Minute)
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
		expectReset(t, path, r.ended(1)[0], accesslog.Shutdown)
	})
}

func TestFrontServesItsQueue(t *testing.T) {
	r := newRig(t, "relay", []string{serve(t, echo)}, nil)
	var cs []net.Conn
	for range 50 {
		cs = append(cs, r.dial())
	}
	r.front.Close(time.Minute)
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
