// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

const syncookies = "/proc/sys/net/ipv4/tcp_syncookies"

// withSyncookies sets the way of answering SYNs for a test. It is the test's
// own namespace that is changed; elsewhere it is left alone.
func withSyncookies(t *testing.T, value string) {
	t.Helper()
	if !ownNamespace(t) {
		t.Skip("needs a network namespace of its own: run as root")
	}
	old, err := os.ReadFile(syncookies)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(syncookies, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.WriteFile(syncookies, old, 0) })
}

// ownNamespace says whether the tests' network namespace is another than that
// of the process that started them.
func ownNamespace(t *testing.T) bool {
	t.Helper()
	mine, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	parent, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", os.Getppid()))
	return err == nil && mine != parent
}

// letter connects, reads which backend it is, and closes; the session's end
// has reached the balancer when the backend is through with it, which is not
// waited for.
func letter(addr string) (byte, error) {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	b := make([]byte, 1)
	_, err = io.ReadFull(c, b)
	return b[0], err
}

func poolOf(balance string, weights []int, backends []*backend) string {
	var w strings.Builder
	fmt.Fprintf(&w, "pools:\n  p:\n    balance: %s\n    backends:\n", balance)
	for i, b := range backends {
		fmt.Fprintf(&w, "      - {address: %q, weight: %d}\n", b.addr, weights[i])
	}
	return w.String()
}

// TestRoundRobin: nginx's smooth weighted order, exact one after the other and
// over 1000 connections that are opened 64 at a time, with picks made by BPF,
// without, and under SYN cookies.
func TestRoundRobin(t *testing.T) {
	for _, u := range users() {
		for _, cookies := range []string{"1", "2"} {
			t.Run(u.name+" syncookies "+cookies, func(t *testing.T) {
				if cookies != "1" {
					withSyncookies(t, cookies)
				}
				for _, family := range []string{"127.0.0.1", "[::1]"} {
					addr := fmt.Sprintf("%s:%d", family, freePort(t))
					b := named(t, 3)
					i := startAs(t, u, poolOf("round_robin", []int{5, 1, 1}, b)+fmt.Sprintf("listeners: [{name: l, listen: %q, pool: p}]\n", addr))
					var order strings.Builder
					for range 14 {
						c, err := letter(addr)
						if err != nil {
							t.Fatal(err)
						}
						order.WriteByte(c)
					}
					if got := order.String(); got != "aabacaaaabacaa" {
						t.Errorf("%s: one after the other: %s, want aabacaa aabacaa", family, got)
					}
					// 14 were two whole cycles: what follows starts afresh.
					counts := spread(t, addr, 1000, 64)
					for k, want := range map[byte]int{'a': 714, 'b': 143, 'c': 143} {
						weight := 1
						if k == 'a' {
							weight = 5
						}
						if d := counts[k] - want; d < -weight || d > weight {
							t.Errorf("%s: %c got %d connections of 1000, want %d within one cycle: %v", family, k, counts[k], want, counts)
						}
					}
					i.lines(1014)
				}
			})
		}
	}
}

// TestKernelPicksBesideADeadBackend: one backend that is down for long doesn't
// take the picks of the others back to userspace.
func TestKernelPicksBesideADeadBackend(t *testing.T) {
	b := named(t, 2)
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	i := start(t, fmt.Sprintf("pools: {p: {backends: [%q, {address: \"127.0.0.1:%d\", fail_timeout: 1h}, %q]}}\nlisteners: [{name: l, listen: %q, pool: p}]\n",
		b[0].addr, freePort(t), b[1].addr, addr))
	const picked = `sluice_dispatch_total{outcome="picked"}`
	if _, body := i.get("/metrics"); !strings.Contains(body, picked) {
		t.Skip("no dispatch here")
	}
	connect := func(n int) string {
		var order strings.Builder
		for range n {
			c, err := letter(addr)
			if err != nil {
				t.Fatal(err)
			}
			order.WriteByte(c)
		}
		return order.String()
	}
	connect(3) // the second is refused by the dead one and goes on to b
	eventually(t, func() string {
		time.Sleep(60 * time.Millisecond) // a pool has to be undisturbed for a moment
		connect(1)
		before := i.metric(picked)
		got := connect(20)
		if n := i.metric(picked) - before; n != 20 {
			return fmt.Sprintf("%v of 20 picks were made in the kernel", n)
		}
		if !strings.Contains("abababababababababababab", got) {
			return "the order is " + got
		}
		return ""
	})
}

// spread opens n connections, at most so many at once, and counts letters.
func spread(t *testing.T, addr string, n, atOnce int) map[byte]int {
	t.Helper()
	var mu sync.Mutex
	counts := make(map[byte]int)
	var wg sync.WaitGroup
	work := make(chan int)
	for range atOnce {
		wg.Go(func() {
			for range work {
				c, err := letter(addr)
				mu.Lock()
				if err != nil {
					t.Error(err)
				}
				counts[c]++
				mu.Unlock()
			}
		})
	}
	for k := range n {
		work <- k
	}
	close(work)
	wg.Wait()
	return counts
}

// TestOrderIsShared: listeners on several addresses that share a pool share
// its order, unix sockets included.
func TestOrderIsShared(t *testing.T) {
	t.Parallel()
	for _, u := range users() {
		t.Run(u.name, func(t *testing.T) {
			one, two, three := freePort(t), freePort(t), freePort(t)
			path := tempDir(t, u) + "/front"
			b := named(t, 3)
			start := fmt.Sprintf("listeners:\n  - {name: l, listen: ['127.0.0.1:%d', '[::1]:%d', 'unix:%s'], pool: p}\n  - {name: m, listen: ':%d', pool: p}\n", one, two, path, three)
			startAs(t, u, poolOf("round_robin", []int{5, 1, 1}, b)+start)
			fronts := []dialer{{"tcp", fmt.Sprintf("127.0.0.1:%d", one)}, {"tcp", fmt.Sprintf("[::1]:%d", two)}, {"unix", path},
				{"tcp", fmt.Sprintf("127.0.0.1:%d", three)}, {"tcp", fmt.Sprintf("[::1]:%d", three)}}
			var order strings.Builder
			for k := range 21 {
				c := fronts[k%len(fronts)].dial(t)
				c.SetDeadline(time.Now().Add(patience))
				b := make([]byte, 1)
				if _, err := io.ReadFull(c, b); err != nil {
					t.Fatal(err)
				}
				order.Write(b)
				c.Close()
			}
			if got := order.String(); got != "aabacaaaabacaaaabacaa" {
				t.Errorf("order %s, want aabacaa three times", got)
			}
		})
	}
}

// TestRules: the other rules do what their names say.
func TestRules(t *testing.T) {
	t.Parallel()
	t.Run("least_conn", func(t *testing.T) {
		addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
		start(t, poolOf("least_conn", []int{1, 1, 1}, named(t, 3))+fmt.Sprintf("listeners: [{name: l, listen: %q, pool: p}]\n", addr))
		counts := make(map[byte]int)
		for range 9 { // held open: each goes where fewest are
			c := dialer{"tcp", addr}.dial(t)
			b := make([]byte, 1)
			c.SetDeadline(time.Now().Add(patience))
			if _, err := io.ReadFull(c, b); err != nil {
				t.Fatal(err)
			}
			counts[b[0]]++
		}
		for k, n := range counts {
			if n != 3 {
				t.Errorf("%c has %d of 9 open connections, want 3", k, n)
			}
		}
	})
	t.Run("random_two", func(t *testing.T) {
		addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
		start(t, poolOf("random_two", []int{1, 1, 1}, named(t, 3))+fmt.Sprintf("listeners: [{name: l, listen: %q, pool: p}]\n", addr))
		if counts := spread(t, addr, 300, 16); len(counts) != 3 {
			t.Errorf("some backend got none of 300: %v", counts)
		}
	})
	t.Run("hash", func(t *testing.T) {
		addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
		start(t, poolOf("hash", []int{1, 1, 1}, named(t, 3))+fmt.Sprintf("listeners: [{name: l, listen: %q, pool: p}]\n", addr))
		if counts := spread(t, addr, 100, 16); len(counts) != 1 {
			t.Errorf("one client was sent to several backends: %v", counts)
		}
		seen := make(map[byte]bool)
		for k := range 60 {
			d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+k))}}
			c, err := d.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 1)
			c.SetDeadline(time.Now().Add(patience))
			if _, err := io.ReadFull(c, b); err != nil {
				t.Fatal(err)
			}
			seen[b[0]] = true
			c.Close()
		}
		if len(seen) != 3 {
			t.Errorf("60 clients were sent to %d backends of 3", len(seen))
		}
	})
}
