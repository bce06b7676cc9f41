// SPDX-License-Identifier: Apache-2.0

package service

import (
	"bufio"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"sluice/internal/nstest"
)

// TestHandOver edits a listener between wildcards and addresses of the same
// port while clients keep coming to one that every edit serves. None of them
// is refused, cut, or has to send its SYN again.
func TestHandOver(t *testing.T) {
	a, front := backend(t, "a"), freeAddr(t)
	_, port, _ := net.SplitHostPort(front)
	cycle := [][]string{{"127.0.0.1"}, {""}, {"0.0.0.0"}, {"127.0.0.1", "[::1]"}, {"[::]"}, {"127.0.0.1", "127.0.0.2"}, {"0.0.0.0"}, {""}}
	file := func(i int) string {
		var listen []string
		for _, host := range cycle[i%len(cycle)] {
			listen = append(listen, host+":"+port)
		}
		return on(a, listen...)
	}
	r := newRig(t, file(0))
	before := nstest.SYNsSentAgain(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var served atomic.Int64
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				s, err := tryOpen(front)
				if err != nil {
					t.Errorf("after %d sessions: %v", served.Load(), err)
					return
				}
				if !s.alive() {
					t.Error("a session was cut")
				}
				s.Close()
				served.Add(1)
			}
		})
	}
	for i := 1; i < 50; i++ {
		r.mustReload(file(i))
	}
	close(stop)
	wg.Wait()
	if n := nstest.SYNsSentAgain(t) - before; n != 0 {
		t.Errorf("%d SYNs of %d sessions had to be sent again", n, served.Load())
	}
	// A socket that has stayed beside a wildcard's goes with it.
	r.mustReload(on(a, ":"+port))
	r.mustReload(on(a, "127.0.0.2:"+port))
	refuses(t, front)
}

// TestHandOverMidHandshake closes a wildcard while a handshake with it is under
// way: one with an address that a narrower listener has now is that listener's,
// another is served as before.
func TestHandOverMidHandshake(t *testing.T) {
	a, b, front := backend(t, "a"), backend(t, "b"), freeAddr(t)
	_, port, _ := net.SplitHostPort(front)
	r := newRig(t, two(":"+port, a))
	stays, goes := half(t, front), half(t, "127.0.0.9:"+port)
	r.mustReload("pools:\n" + poolYAML("p", "", a) + poolYAML("q", "", b) + "listeners:\n" + listenerYAML("new", front, "q"))
	stays.Hear()
	goes.Hear()
	for name, h := range map[string]*nstest.Half{"b": stays, "a": goes} {
		c, err := h.Conn()
		if err != nil {
			t.Fatalf("the handshake for %s: %v", name, err)
		}
		defer c.Close()
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil || strings.TrimSpace(line) != name {
			t.Errorf("got %q, %v, want the session to be with %s", line, err, name)
		}
	}
	refuses(t, "127.0.0.9:"+port)
}

// TestComesBack: an address that is put back while its sockets wait for a
// handshake is served by those at once.
func TestComesBack(t *testing.T) {
	a, front := backend(t, "a"), freeAddr(t)
	_, port, _ := net.SplitHostPort(front)
	other := "127.0.0.9:" + port
	for name, back := range map[string][]string{"itself": {front, other}, "covered": {":" + port}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, on(a, front, other))
			half(t, other)
			r.mustReload(on(a, front))
			before := nstest.SYNsSentAgain(t)
			r.mustReload(on(a, back...))
			if got := picks(t, other, 8); got != "a a a a a a a a" {
				t.Errorf("got %s", got)
			}
			if n := nstest.SYNsSentAgain(t) - before; n > 2 { // the half-open one's may be among them, either way
				t.Errorf("%d SYNs had to be sent again", n)
			}
		})
	}
}

// on is a file of one backend behind these addresses.
func on(backend string, listen ...string) string {
	return "pools:\n" + poolYAML("p", "", backend) + "listeners:\n  - {name: l, listen: [\"" + strings.Join(listen, `", "`) + "\"], pool: p}\n"
}

// refuses waits until nobody listens on addr.
func refuses(t *testing.T, addr string) {
	t.Helper()
	eventually(t, addr+" refuses", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
}

func half(t *testing.T, addr string) *nstest.Half {
	t.Helper()
	return nstest.HalfOpen(t, netip.MustParseAddrPort(addr))
}
