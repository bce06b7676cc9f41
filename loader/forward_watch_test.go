// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/bpf"
	"sluice/internal/mono"
)

// While the sockets have a flow's packets, what they may have got is kept, and
// nothing is changed.
func TestForwardWatches(t *testing.T) {
	const high = 0xffff_ff80 // wraps within the packets below
	cases := []struct {
		name   string
		state  uint32
		edit   func(*segment)
		in     uint32 // afterwards; before it is high
		counts string
	}{
		{"data", stateWatched, nil, high + 100, "up"},
		{"data that wraps", stateWatched, payload(1000), high + 1000 - 1<<32, "up"},
		{"an acknowledgement", stateWatched, empty(ack), high, "up"},
		{"an end of stream", stateWatched, empty(fin | ack), high + 1, "up"},
		{"with data", stateWatched, func(s *segment) { s.flags |= fin }, high + 101, "up"},
		{"sent again", stateWatched, seqBy(-100), high, "up"},
		{"sent again in part", stateWatched, seqBy(-40), high + 60, "up"},
		{"a reset", stateWatched, empty(rst), high, "up"},
		{"armed, a reset", stateArmed, empty(rst | ack), high, "up"},
		{"armed, a SYN", stateArmed, empty(syn | ack), high, "up"},
		{"armed, without an acknowledgement", stateArmed, empty(psh), high, "up"},
		{"armed, no sockets", stateArmed, nil, high + 100, "up unquiet"},
	}
	inLab(t, func(t *testing.T, outer *lab) {
		for _, c := range cases {
			for side, name := range []string{"client: ", "backend: "} {
				t.Run(name+c.name, func(t *testing.T) {
					l := &lab{t, outer.f, outer.v}
					r := l.record()
					r.State = c.state
					if c.state == stateWatched {
						r.Flags = 0
					}
					l.set(r)
					w := bpf.ForwardFlowWatch{In: sides{7, 7}}
					w.In[side] = high
					slot := uint32(labSlot)
					must(t, 0, l.f.objs.Watches.Put(slot, &w))
					s := l.segment(side)
					s.seq = high
					if c.edit != nil {
						c.edit(&s)
					}
					before := l.counts()
					in := s.frame()
					verdict, out := l.run(l.f.objs.Forward, slices.Clone(in), false)
					if verdict != passed || !slices.Equal(in, out) {
						t.Errorf("verdict %d, or changed", int32(verdict))
					}
					l.counted(before, strings.Fields(c.counts)...)
					must(t, 0, l.f.objs.Watches.Lookup(slot, &w))
					want := sides{7, 7}
					want[side] = c.in
					if w.In != want {
						t.Errorf("left to the sockets: %#x, not %#x", w.In, want)
					}
					if raised := w.Raised[side] != 0; raised != (c.in != high) || w.Raised[1-side] != 0 {
						t.Errorf("raised at %d", w.Raised)
					}
					if c.state == stateWatched {
						r.Flags = 1 << side // SEEN_CLIENT, SEEN_BACKEND
					}
					l.recorded(r)
				})
			}
		}
	})
}

// Before the other side has been seen there is no cut, whatever the packet says: its
// packets may go another way.
func TestForwardNeedsBothSides(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		r := l.record()
		r.State, r.Flags = stateArmed, 0
		l.set(r)
		for side, counts := range [][]string{{"up"}, {"up", "unquiet"}} { // only then the sockets are asked
			before := l.counts()
			if verdict, _ := l.run(l.f.objs.Forward, l.segment(side).frame(), false); verdict != passed {
				t.Errorf("verdict %d", int32(verdict))
			}
			l.counted(before, counts...)
		}
	})
}

// A packet that a side may have sent before the flow was registered tells nothing: another
// of that time may be on its way to its socket still. One that brings more does, or that
// acknowledges what was written since, and time.
func TestForwardNeedsNews(t *testing.T) {
	now := uint64(mono.New().Now())
	const long = uint64(time.Minute)
	inLab(t, func(t *testing.T, l *lab) {
		for side := range 2 {
			s := l.segment(side)
			s.payload = nil
			for _, c := range []struct {
				what  string
				wrote uint32
				in    uint32
				since uint64
				edit  func(*segment)
				seen  bool
			}{
				{"acknowledges what was written before", s.ack, s.seq, now + long, nil, false},
				{"acknowledges less than that", s.ack + 1, s.seq, now + long, nil, false},
				{"acknowledges one byte since", s.ack - 1, s.seq, now + long, nil, true},
				{"acknowledges some, before a wrap", s.ack - 1<<30, s.seq, now + long, nil, true},
				{"says nothing of that", s.ack - 1, s.seq, now + long, func(s *segment) { s.flags = psh }, false},
				{"was sent again", s.ack - 1, s.seq + 1, now + long, nil, false},
				{"brings more than came so far", s.ack, s.seq, now + long, payload(1), true},
				{"brings more after a gap", s.ack, s.seq - 500, now + long, payload(1), true},
				{"brings what came", s.ack, s.seq, now + long, edits(payload(10), seqBy(-10)), false},
				{"ends its stream", s.ack, s.seq, now + long, empty(fin | ack), true},
				{"comes long after", s.ack, s.seq, now - long, nil, true},
			} {
				r := l.record()
				r.State, r.Flags = stateArmed, 0
				l.set(r)
				w := bpf.ForwardFlowWatch{Since: c.since}
				w.Wrote[side], w.In[side] = c.wrote, c.in
				must(t, 0, l.f.objs.Watches.Put(uint32(labSlot), &w))
				p := s
				if c.edit != nil {
					c.edit(&p)
				}
				if verdict, _ := l.run(l.f.objs.Forward, p.frame(), false); verdict != passed {
					t.Errorf("side %d %s: verdict %d", side, c.what, int32(verdict))
				}
				if seen := l.f.Flow(labSlot).Flags() == 1<<side; seen != c.seen {
					t.Errorf("side %d %s: seen %t", side, c.what, seen)
				}
			}
		}
	})
}

// What a side has acknowledged is exact beyond 4 GiB, and beyond 4 GiB again.
func TestForwardCountsWraps(t *testing.T) {
	const step, steps = 1 << 29, 40 // of the bytes between two acknowledgements
	inLab(t, func(t *testing.T, l *lab) {
		for side := range 2 {
			from := 1 - side
			r := l.record()
			r.Side[from].Cut, r.Side[from].Fin = r.Side[from].Next, r.Side[from].Next
			l.set(r)
			rec := l.f.Flow(labSlot)
			for i := range uint32(steps) {
				rec.raw.Side[from].Next += step // sent meanwhile
				s := l.segment(side)
				s.flags, s.payload = ack, nil
				s.ack += step * (i + 1)
				if verdict, _ := l.run(l.f.objs.Forward, s.frame(), false); verdict != sentOn {
					t.Fatalf("verdict %d", int32(verdict))
				}
				if n := rec.Delivered(from); n != uint64(step)*uint64(i+1) {
					t.Fatalf("%d delivered of %d steps", n, i+1)
				}
				if n := rec.Delivered(side); n != 0 {
					t.Fatalf("%d delivered the other way", n)
				}
				s.ack -= step / 1000 // an old one
				l.run(l.f.objs.Forward, s.frame(), false)
				if rec.Unacknowledged(from) {
					t.Fatal("all is acknowledged")
				}
			}
		}
	})
}
