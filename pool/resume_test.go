// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"net/netip"
	"testing"
	"time"
)

// Sessions of a process before count for their backends and for max_conns, and take no
// pick; a backend that the file doesn't have is a removed one for as long as they live.
func TestResume(t *testing.T) {
	at := func(port uint16) Addr {
		return Addr{AddrPort: netip.AddrPortFrom(netip.MustParseAddr("198.18.0.1"), port)}
	}
	p := New("p", nil, nil)
	now := time.Now()
	p.Apply(Options{}, []Spec{{Addr: at(1), Weight: 1, MaxConns: 2}, {Addr: at(2), Weight: 1}}, now)
	a, gone := p.Find(at(1)), p.Find(at(9))
	p.Resume(a)
	p.Resume(gone)
	if again := p.Find(at(9)); again != gone {
		t.Error("a backend with sessions isn't found again")
	}
	if l := p.Removed(); len(l) != 1 || l[0] != gone {
		t.Errorf("removed: %v", l)
	}
	var s State
	for i, want := range []uint16{1, 2, 2, 2} { // the first in turn, though it has a session; then it is full
		s = State{}
		if b := p.Pick(&s, now); b.Addr != at(want) {
			t.Errorf("pick %d: %s, want port %d", i, b.Addr, want)
		}
	}
	p.Release(gone, now)
	if l := p.Backends(); len(l) != 2 {
		t.Errorf("%d backends, want those of the file", len(l))
	}
	p.Release(a, now)
	p.Pick(&State{}, now)
	if b := p.Pick(&State{}, now); b.Addr != at(1) {
		t.Errorf("%s, want the one that isn't full any more", b.Addr)
	}
}
