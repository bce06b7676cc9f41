// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"strings"
	"testing"
)

// TestPortRange: each port of a range is served; an edit that widens or narrows
// it keeps the sockets of the ports that stay.
func TestPortRange(t *testing.T) {
	a := backend(t, "a")
	file := func(from, to int) string { return two(fmt.Sprintf("127.0.0.1:%d-%d", from, to), a) }
	serves := func(from, to int) {
		t.Helper()
		for port := from; port <= to; port++ {
			if got := picks(t, fmt.Sprintf("127.0.0.1:%d", port), 1); got != "a" {
				t.Errorf("port %d: %q", port, got)
			}
		}
	}
	r := newRig(t, file(20010, 20019))
	serves(20010, 20019)
	before := r.fronts()
	r.mustReload(file(20005, 20024))
	serves(20005, 20024)
	for addr, f := range before {
		if r.fronts()[addr] != f {
			t.Errorf("%s was bound anew", addr)
		}
	}
	r.mustReload(file(20012, 20013))
	serves(20012, 20013)
	for _, port := range []int{20005, 20011, 20014, 20024} {
		refuses(t, fmt.Sprintf("127.0.0.1:%d", port))
	}
}

// TestTooManySockets: an edit whose listening sockets would leave sessions no
// descriptors is refused, and says what to do.
func TestTooManySockets(t *testing.T) {
	a, front := backend(t, "a"), freeAddr(t)
	r := newRig(t, two(front, a))
	eventually(t, "serving", func() bool { return len(r.fronts()) == 1 })
	r.s.fds = 10 * r.s.sockets // as if the limit were that low; Run's goroutine is idle
	err := r.reload(two("127.0.0.1:20100-20199", a))
	if err == nil || !strings.Contains(err.Error(), "LimitNOFILE") {
		t.Errorf("got %v", err)
	}
	if got := picks(t, front, 1); got != "a" {
		t.Errorf("got %s", got)
	}
	r.mustReload(two("127.0.0.1:20100-20104", a))
	if got := r.s.engine.MaxSessionFDs(); got != 5*r.s.sockets {
		t.Errorf("sessions may have %d descriptors, want %d", got, 5*r.s.sockets)
	}
}
