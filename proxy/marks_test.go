// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"io"
	"net/netip"
	"testing"
	"time"

	"sluice/config"
	"sluice/internal/needs"
)

// ecn dials an address of the front's host and sees whether the client's connection has
// the ECN that it asks for.
func (r *rig) ecn(at netip.AddrPort, want bool) {
	r.t.Helper()
	h := ground(r.t)
	c, err := h.Client.Dial(r.t.Context(), h.of(h.Client)[0], at)
	if err != nil {
		r.t.Fatal(err)
	}
	b := []byte("once: it isn't forwarded")
	if _, err = c.Write(b); err == nil {
		_, err = io.ReadFull(c, b)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	s := r.session()
	s.loop.call(func() {
		if _, options, ok := agreedOn(s.cli.fd); !ok || (options&hasECN != 0) != want {
			r.t.Errorf("options %#x (%t), want ECN %t", options, ok, want)
		}
	})
	c.Close()
	r.empty()
}

// forwards has the front go by the rig's settings, with or without forwarding.
func (r *rig) forwards(f *Front, yes bool) {
	c := *r.settings
	c.OffloadAllowed = yes
	f.Serve(&c)
}

// marked sees how many addresses are.
func (r *rig) marked(want int) {
	r.t.Helper()
	m := &r.engine.offload.Load().marks
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.fronts) != want {
		r.t.Errorf("%d addresses are marked, not %d: %v", len(m.fronts), want, m.fronts)
	}
}

// TestFrontsAreMarked: clients come without ECN to fronts whose sessions may be
// forwarded, and with it to others, through edits of the listeners and of what is
// loaded.
func TestFrontsAreMarked(t *testing.T) {
	needs.Offload(t)
	for _, v6 := range []bool{false, true} {
		t.Run(map[bool]string{false: "IPv4", true: "IPv6"}[v6], func(t *testing.T) {
			peculiar{v6: v6, clientTime: true, backendTime: true}.hosts(t)
			h := ground(t)
			h.Client.Sysctl(t, "ipv4/tcp_ecn", "1")
			r := newRig(t, "offload", []string{serve(t, echo)}, nil)
			here := r.front.Addr()
			r.ecn(here, false)
			r.forwards(r.front, false)
			r.ecn(here, true)
			r.marked(0)
			r.forwards(r.front, true)
			r.forwards(r.front, true)
			r.ecn(here, false)
			r.marked(1)

			r.wildcards()
			r.marked(1)

			// What is loaded goes and comes.
			r.forwards(r.front, false)
			if err := r.engine.SetOffload(nil); err != nil {
				t.Fatal(err)
			}
			r.forwards(r.front, true)
			r.ecn(here, true)
			next := newOffload(t, 16)
			t.Cleanup(func() {
				if err := r.engine.SetOffload(nil); err != nil {
					t.Error(err)
				}
			})
			if err := r.engine.SetOffload(next); err != nil {
				t.Fatal(err)
			}
			r.ecn(here, true)
			r.forwards(r.front, true)
			r.ecn(here, false)
			r.marked(1)
		})
	}
}

// wildcards tries fronts of both families and of one, which share an address, beside the
// one that is marked.
func (r *rig) wildcards() {
	t, h := r.t, ground(r.t)
	bind := func(a config.Address, overlaps bool) *Front {
		t.Helper()
		f, err := r.engine.Bind(a, 16, 0, overlaps)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			f.Close(time.Minute)
			<-f.Done()
		})
		return f
	}
	any := bind(config.Address{Addr: netip.IPv6Unspecified(), Any: true}, false)
	r.marked(3) // before anybody serves it
	at := netip.AddrPortFrom(h.Front(h.v6), any.Addr().Port())
	r.forwards(any, true)
	r.ecn(at, false)

	one := config.Address{Addr: netip.IPv4Unspecified(), Port: at.Port()}
	if h.v6 {
		one.Addr = netip.IPv6Unspecified()
	}
	f := bind(one, true)
	if err := f.Listen(); err != nil {
		t.Fatal(err)
	}
	r.forwards(f, true)
	any.Succeed([]*Front{f})
	any.Close(time.Minute)
	<-any.Done()
	r.marked(2)
	r.ecn(at, false)
	r.forwards(f, false)
	r.ecn(at, true)
	r.forwards(f, true)
	r.ecn(at, false)
	f.Close(time.Minute)
	<-f.Done()

	never := bind(config.Address{Addr: at.Addr()}, false)
	r.marked(2)
	never.Close(0)
}

// An address that there is no room for is no obstacle.
func TestNoRoomForMarks(t *testing.T) {
	needs.Offload(t)
	o := newOffload(t, 16)
	m := marks{forward: o.Forward, fronts: map[netip.AddrPort]int{}}
	addr := func(i int) []netip.AddrPort {
		return []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 80)}
	}
	n := 0
	for ; m.add(addr(n)) == nil; n++ {
		if n == 1<<16 {
			t.Fatal("there is no end")
		}
	}
	if err := m.remove(addr(n)); err != nil {
		t.Error("what isn't there: ", err)
	}
	if err := m.remove(addr(0)); err != nil {
		t.Error(err)
	}
	if err := m.add(addr(n)); err != nil {
		t.Error("there is room again: ", err)
	}
	m.end()
	if err := m.add(addr(n + 1)); err != nil {
		t.Error("after the end nothing is to be done: ", err)
	}
}
