// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// backend is a server behind the balancers.
type backend struct {
	addr     string
	accepted atomic.Int64
	live     atomic.Int64
	mu       sync.Mutex
	conns    map[net.Conn]bool
	l        net.Listener
}

// serve runs a backend that gives each connection to h.
func serve(t testing.TB, network, addr string, h func(net.Conn)) *backend {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	b := serveOn(t, l, h)
	if network == "unix" {
		b.addr = "unix:" + addr
		if err := os.Chmod(addr, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// serveOn gives each connection of l to h, until the test ends; it closes l.
func serveOn(t testing.TB, l net.Listener, h func(net.Conn)) *backend {
	b := &backend{addr: l.Addr().String(), conns: make(map[net.Conn]bool), l: l}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b.accepted.Add(1)
			b.live.Add(1)
			b.mu.Lock()
			b.conns[c] = true
			b.mu.Unlock()
			wg.Go(func() {
				h(c)
				c.Close()
				b.mu.Lock()
				delete(b.conns, c)
				b.mu.Unlock()
				b.live.Add(-1)
			})
		}
	})
	t.Cleanup(func() {
		b.stop()
		wg.Wait()
	})
	return b
}

// stop closes the listener and every connection.
func (b *backend) stop() {
	b.l.Close()
	b.mu.Lock()
	for c := range b.conns {
		c.Close()
	}
	b.mu.Unlock()
}

func tcp(t testing.TB, h func(net.Conn)) *backend {
	t.Helper()
	return serve(t, "tcp", fmt.Sprintf("127.0.0.1:%d", freePort(t)), h)
}

// named are n backends that say their letter and wait for the client to go.
func named(t testing.TB, n int) []*backend {
	t.Helper()
	var list []*backend
	for i := range n {
		list = append(list, tcp(t, func(c net.Conn) {
			c.Write([]byte{byte('a' + i)})
			io.Copy(io.Discard, c)
		}))
	}
	return list
}

func echo(c net.Conn) { io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}) }

// refusing is an address on which nobody listens, nor will.
func refusing(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", freePort(t))
}

// silent is an address that never answers a SYN: a listener with a full queue.
func silent(t testing.TB) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	port := freePort(t)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	for range 4 {
		c, err := net.DialTimeout("tcp", addr, 300*time.Millisecond)
		if err != nil {
			return addr // full
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("a listener with a backlog of 0 took 4 connections")
	return ""
}

func unixPath(t testing.TB) string {
	t.Helper()
	return filepath.Join(tempDir(t, user{}), "s")
}
