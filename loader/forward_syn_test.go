// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

// synOptions are a SYN's, as Linux writes them: with timestamps or with padding where
// they were.
func synOptions(ts bool) []byte {
	o := []byte{2, 4, 5, 0xb4, 4, 2}
	if ts {
		o = append(o, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0)
	} else {
		o = append(o, slices.Repeat([]byte{1}, 10)...)
	}
	return append(o, 1, 3, 3, 7)
}

// ECN is taken out of a client's SYN to a front, and out of nothing else.
func TestFrontsTakeOutECN(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		front := l.v.front
		wild := netip.AddrPortFrom(wild6, front.Port())
		other := wild4
		if front.Addr().Is4() {
			wild, other = netip.AddrPortFrom(wild4, front.Port()), wild6
		}
		for _, c := range []struct {
			name string
			at   netip.AddrPort
			took bool
		}{
			{"its address", front, true},
			{"its family's wildcard", wild, true},
			{"the other family's wildcard", netip.AddrPortFrom(other, front.Port()), false},
			{"another port", portOf(front, 1), false},
			{"another address", netip.AddrPortFrom(l.v.host.Addr(), front.Port()), false},
		} {
			t.Run(c.name, func(t *testing.T) {
				l := &lab{t, l.f, l.v}
				must(t, 0, l.f.AddFront(c.at))
				must(t, 0, l.f.AddFront(c.at))
				l.takesECN(c.took)
				must(t, 0, l.f.RemoveFront(c.at))
				must(t, 0, l.f.RemoveFront(c.at))
				l.takesECN(false)
			})
		}
	})
}

// Timestamps are taken out of a client's SYN to a plain front, too, and of nothing else.
func TestPlainFront(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		if err := l.f.PlainFront(l.v.front, true); err == nil {
			t.Error("a front that isn't there is plain")
		}
		wild := netip.AddrPortFrom(wild6, l.v.front.Port())
		if l.v.front.Addr().Is4() {
			wild = netip.AddrPortFrom(wild4, l.v.front.Port())
		}
		for _, at := range []netip.AddrPort{l.v.front, wild} {
			must(t, 0, l.f.AddFront(at))
			for _, plain := range []bool{false, true, false} {
				must(t, 0, l.f.PlainFront(at, plain))
				for _, flags := range []byte{syn, syn | ece | cwr, syn | ack, ack} {
					for _, has := range []bool{true, false} {
						l.takesTimestamps(flags, has, plain)
					}
				}
			}
			must(t, 0, l.f.RemoveFront(at))
			l.takesTimestamps(syn, true, false)
		}
	})
}

// takesTimestamps tries a packet from a port that is no flow's.
func (l *lab) takesTimestamps(flags byte, has, plain bool) {
	l.t.Helper()
	s := l.segment(ClientSide)
	s.src, s.flags, s.options = portOf(s.src, 5), flags, synOptions(has)
	want := s
	var counts []string
	if flags&(syn|ack) == syn {
		if want.flags = syn; flags != syn {
			counts = append(counts, "ecn")
		}
		if plain && has {
			want.options = synOptions(false)
			counts = append(counts, "plain")
		}
	}
	before := l.counts()
	verdict, out := l.run(l.f.objs.Forward, s.frame(), false)
	if verdict != passed {
		l.t.Fatalf("verdict %d", int32(verdict))
	}
	l.same(out, want)
	l.counted(before, counts...)
}

// takesECN tries all SYNs from another port, which is no flow's.
func (l *lab) takesECN(took bool) {
	l.t.Helper()
	for _, bits := range []byte{0, ece, cwr, ece | cwr} {
		for _, ae := range []bool{false, true} {
			for _, flags := range []byte{syn, syn | ack, ack, rst, fin | ack} {
				s := l.segment(ClientSide)
				s.src, s.flags, s.ae, s.options = portOf(s.src, 5), flags|bits, ae, synOptions(true)
				want := s
				var counts []string
				if took && flags == syn && (bits != 0 || ae) {
					want.flags, want.ae = flags, false
					counts = []string{"ecn"}
				}
				before := l.counts()
				verdict, out := l.run(l.f.objs.Forward, s.frame(), false)
				if verdict != passed {
					l.t.Fatalf("verdict %d", int32(verdict))
				}
				l.same(out, want)
				l.counted(before, counts...)
			}
		}
	}
}

// It is taken out also of the SYN by which a client begins anew from the port of a
// flow that has ended; that of a live flow is another's business.
func TestFrontsAfterAFlow(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		must(t, 0, l.f.AddFront(l.v.front))
		defer func() { must(t, 0, l.f.RemoveFront(l.v.front)) }()
		for state, took := range map[uint32]bool{stateForwarded: false, stateWatched: false, stateEnded: true, stateReset: true} {
			t.Run(fmt.Sprint(state), func(t *testing.T) {
				l := &lab{t, l.f, l.v}
				r := l.record()
				r.State = state
				l.set(r)
				s := l.segment(ClientSide)
				s.flags, s.ae, s.payload = syn|ece|cwr, true, nil
				verdict, out := l.run(l.f.objs.Forward, s.frame(), false)
				if state != stateForwarded && verdict != passed || !sums(slices.Clone(out)) {
					t.Fatalf("verdict %d, or a checksum is wrong", int32(verdict))
				}
				if _, l4 := headers(out); (out[l4+13]&(ece|cwr) == 0 && out[l4+12]&1 == 0) != took {
					t.Errorf("flags %#x %#x", out[l4+12], out[l4+13])
				}
			})
		}
	})
}

// A SYN of the host's goes without what PlainSYN says, to that backend and from that
// port, until ForgetSYN.
func TestPlainSYN(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		own := l.segment(ClientSide)
		own.src, own.dst = l.v.host, l.v.backend
		own.flags, own.ae, own.payload, own.options = syn|ece|cwr, true, nil, synOptions(true)
		run := func(t *testing.T, in, want segment, counts ...string) {
			t.Helper()
			l := &lab{t, l.f, l.v}
			before := l.counts()
			verdict, out := l.run(l.f.StripProgram(), in.frame(), false)
			if verdict != passed {
				t.Fatalf("verdict %d", int32(verdict))
			}
			l.same(out, want)
			l.counted(before, counts...)
		}
		for _, w := range []Without{0, WithoutTimestamps, WithoutECN, WithoutTimestamps | WithoutECN} {
			must(t, 0, l.f.PlainSYN(own.src.Port(), own.dst, w))
			want := own
			if w&WithoutTimestamps != 0 {
				want.options = synOptions(false)
			}
			if w&WithoutECN != 0 {
				want.flags, want.ae = syn, false
			}
			t.Run(fmt.Sprint(w), func(t *testing.T) { run(t, own, want, "plain") })
		}
		for name, edit := range map[string]func(*segment){
			"another port":         func(s *segment) { s.src = portOf(s.src, 1) },
			"another port of its":  func(s *segment) { s.dst = portOf(s.dst, 1) },
			"another backend":      func(s *segment) { s.dst = netip.AddrPortFrom(l.v.client.Addr(), s.dst.Port()) },
			"the handshake's end":  func(s *segment) { s.flags = ack },
			"an answer":            func(s *segment) { s.flags = syn | ack },
			"data with timestamps": func(s *segment) { s.flags, s.options = ack|psh, timestamps(1, 2) },
			"a reset":              func(s *segment) { s.flags, s.options = rst, nil },
			"an end of stream":     func(s *segment) { s.flags = fin },
		} {
			t.Run(name, func(t *testing.T) {
				s := own
				edit(&s)
				run(t, s, s)
			})
		}
		t.Run("odd options", func(t *testing.T) {
			ts := timestamps(1, 2)[2:]
			blank := slices.Repeat([]byte{1}, 10)
			for _, o := range [][2][]byte{
				{nil, nil},
				{padded(0, ts), padded(0, blank)},
				{padded(29, ts), padded(29, blank)},
				{padded(3, ts, ts, ts), padded(3, blank, blank, blank)},
				{padded(0, []byte{254, 9, 8, 10, 1, 1, 1, 1, 1}, ts), padded(0, []byte{254, 9, 8, 10, 1, 1, 1, 1, 1}, blank)},
				{{1, 0, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8}, {1, 0, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8}},
				{{254, 0, 8, 10}, {254, 0, 8, 10}},
				{{1, 1, 8, 10, 0, 0, 0, 0}, {1, 1, 8, 10, 0, 0, 0, 0}},
				{{1, 1, 1, 8}, {1, 1, 1, 8}},
			} {
				s := own
				s.options = o[0]
				want := s
				want.flags, want.ae, want.options = syn, false, o[1]
				run(t, s, want, "plain")
			}
		})
		t.Run("the device's sum", func(t *testing.T) {
			l := &lab{t, l.f, l.v}
			needCompleteSums(t, l)
			l.runComplete(l.f.StripProgram(), own.frame(), passed)
		})
		l.f.ForgetSYN(own.src.Port(), own.dst)
		l.f.ForgetSYN(own.src.Port(), own.dst)
		t.Run("forgotten", func(t *testing.T) { run(t, own, own) })
		t.Run("malformed", func(t *testing.T) {
			must(t, 0, l.f.PlainSYN(own.src.Port(), own.dst, WithoutTimestamps))
			defer l.f.ForgetSYN(own.src.Port(), own.dst)
			for _, spoil := range []func(b []byte, l4 int) []byte{
				cutAt(10), cutAt(19), tcpByte(12, 0), tcpByte(12, 4<<4), tcpByte(12, 15<<4), ipByte(0, 0x15), ipByte(6, 44), ipByte(9, 17),
			} {
				b := own.frame()
				_, l4 := headers(b)
				b = spoil(b, l4)
				if verdict, out := (&lab{t, l.f, l.v}).run(l.f.StripProgram(), slices.Clone(b), false); verdict != passed || len(out) != len(b) {
					t.Errorf("verdict %d, %d bytes of %d", int32(verdict), len(out), len(b))
				}
			}
		})
	})
}

// More connections than there is room for are made as usual.
func TestPlainSYNFull(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		if l.v.client.Addr().Is6() {
			return
		}
		room := int(l.f.objs.ForwardPlain.MaxEntries())
		for i := range room {
			must(t, 0, l.f.PlainSYN(uint16(i), l.v.backend, WithoutTimestamps))
		}
		if err := l.f.PlainSYN(1, l.v.client, WithoutTimestamps); err == nil {
			t.Error("one too many")
		}
		l.f.ForgetSYN(77, l.v.backend)
		must(t, 0, l.f.PlainSYN(1, l.v.client, WithoutTimestamps))
	})
}
