// SPDX-License-Identifier: Apache-2.0

package service

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// waiter is a client that hasn't sent its PROXY header yet.
func waiter(t *testing.T, addr string) *peer {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	time.Sleep(50 * time.Millisecond) // accepted by now
	return &peer{Conn: c, in: bufio.NewReader(c)}
}

// speaks sends the header, and gives the name of the backend that answers.
func (s *peer) speaks() string {
	fmt.Fprint(s, "PROXY TCP4 198.18.0.9 198.18.0.1 1234 80\r\n")
	line, err := s.in.ReadString('\n')
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(line)
}

// TestHeaderAfterEdits: a session goes by the settings that are in force when
// its header is complete, not by those of its accept.
func TestHeaderAfterEdits(t *testing.T) {
	a, b, front := backend(t, "a"), backend(t, "b"), freeAddr(t)
	file := func(pool, backend, listener, more string) string {
		return "pools:\n" + poolYAML(pool, "", backend) + "listeners:\n" +
			fmt.Sprintf("  - {name: %s, listen: %q, pool: %s, proxy_protocol: {accept: true}%s}\n", listener, front, pool, more)
	}
	r := newRig(t, file("p", a, "l", ""))
	for i, c := range []struct{ what, file, want, line string }{
		{"a pool renamed", file("q", b, "l", ""), "b", `"listener":"l","pool":"q"`},
		{"a pool of the same name", file("q", a, "l", ""), "a", `"listener":"l","pool":"q"`},
		{"a listener renamed", file("q", a, "m", ", max_conns_per_ip: 1"), "a", `"listener":"m","pool":"q"`},
	} {
		s := waiter(t, front)
		r.mustReload(c.file)
		if got := s.speaks(); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
		if i == 2 { // the limit is the new listener's
			other := waiter(t, front)
			if got := other.speaks(); !strings.Contains(got, "reset") && got != "EOF" {
				t.Errorf("a second session: %s", got)
			}
			other.Close()
		}
		for _, l := range r.s.Snapshot().Listeners {
			if l.Active != 1 || l.Total < 1 || l.Total > 2 {
				t.Errorf("%s: %s has %d of %d", c.what, l.Name, l.Active, l.Total)
			}
		}
		s.Close()
		eventually(t, "a line with "+c.line, func() bool { return strings.Contains(strings.Join(r.lines(), "\n"), c.line) })
	}
}

// TestHeaderAfterRemoval: who was accepted by a listener that goes with its
// pool is served.
func TestHeaderAfterRemoval(t *testing.T) {
	a, b, front, other := backend(t, "a"), backend(t, "b"), freeAddr(t), freeAddr(t)
	stays := fmt.Sprintf("  - {name: other, listen: %q, backends: [%q]}\n", other, b)
	goes := fmt.Sprintf("  - {name: l, listen: %q, backends: [%q], proxy_protocol: {accept: true}}\n", front, a)
	r := newRig(t, "listeners:\n"+stays+goes)
	s := waiter(t, front)
	r.mustReload("listeners:\n" + stays)
	if got := s.speaks(); got != "a" || !s.alive() {
		t.Errorf("served by %s", got)
	}
	s.Close()
	eventually(t, "nothing of the pool is left", func() bool { return !strings.Contains(states(r), a) })
}

// TestRemovedUnderClients takes a listener with its own backends away while
// clients come: each is refused, or served to its end.
func TestRemovedUnderClients(t *testing.T) {
	a, b, front, other := backend(t, "a"), backend(t, "b"), freeAddr(t), freeAddr(t)
	stays := fmt.Sprintf("  - {name: other, listen: %q, backends: [%q]}\n", other, b)
	goes := fmt.Sprintf("  - {name: l, listen: %q, backends: [%q]}\n", front, a)
	r := newRig(t, "listeners:\n"+stays+goes)
	for range 10 {
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					c, err := net.DialTimeout("tcp", front, time.Second)
					if err != nil {
						continue // refused, or its SYN wasn't answered
					}
					c.SetDeadline(time.Now().Add(10 * time.Second))
					if line, err := bufio.NewReader(c).ReadString('\n'); line != "a\n" {
						t.Errorf("accepted, and then %q %v", line, err)
					}
					c.Close()
				}
			})
		}
		time.Sleep(20 * time.Millisecond)
		r.mustReload("listeners:\n" + stays)
		time.Sleep(20 * time.Millisecond)
		r.mustReload("listeners:\n" + stays + goes)
		close(stop)
		wg.Wait()
	}
}

// TestRetryAfterEdits: the next attempt is with the pool that the listener has
// by then, and leaves out what was tried in the old one.
func TestRetryAfterEdits(t *testing.T) {
	a, front := backend(t, "a"), freeAddr(t)
	mute, mute2 := fullBackend(t), fullBackend(t)
	file := func(pool string, backends ...string) string {
		return "pools:\n" + poolYAML(pool, "", backends...) + "listeners:\n" +
			fmt.Sprintf("  - {name: l, listen: %q, pool: %s, connect_timeout: 500ms}\n", front, pool)
	}
	r := newRig(t, file("p", mute, mute2))
	c, err := net.Dial("tcp", front)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	time.Sleep(50 * time.Millisecond) // its first attempt is under way
	r.mustReload(file("q", mute, a))
	if line, err := bufio.NewReader(c).ReadString('\n'); line != "a\n" {
		t.Errorf("%q %v", line, err)
	}
	c.Close()
	eventually(t, "a line with both attempts, and the pool of the last", func() bool {
		for _, l := range r.lines() {
			if strings.Contains(l, fmt.Sprintf(`"%s, %s"`, mute, a)) && strings.Contains(l, `"pool":"q"`) {
				return true
			}
		}
		return false
	})
}
