// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
)

// endStep is one packet of several; fields as in packetRow.
type endStep struct {
	side   int
	edit   func(*segment)
	want   func(*flowRecord)
	events []EventKind
	ends   uint64
}

// Ends of stream: FORWARDED until both are acknowledged, then ENDED, told once.
func TestForwardFins(t *testing.T) {
	const c, b = ClientSide, BackendSide
	closes := func(side int) func(*segment) { return empty(fin | ack) }
	fins := func(side int, n uint32) func(*flowRecord) { // with n bytes before it
		return func(r *flowRecord) {
			r.Side[side].Next += n + 1
			r.Side[side].Fin = r.Side[side].Next
			r.Side[side].SeenNs = 1
			r.Flags |= finClient << side
		}
	}
	finAcked := func(side int) func(*flowRecord) { return func(r *flowRecord) { r.Flags |= finackClient << side } }
	first := func(r *flowRecord) { r.Flags |= firstFinBackend }
	over := func(r *flowRecord) { r.State, r.End, r.EndedNs = stateEnded, 1, 1 }
	uncounted := func(side int) func(*flowRecord) { return func(r *flowRecord) { r.Side[side].Packets-- } }
	acked := func(n int) func(*segment) { return edits(empty(ack), ackBy(n)) }
	for _, c := range []struct {
		name  string
		steps []endStep
	}{
		{"client first", []endStep{
			{c, closes(c), fins(c, 0), nil, 0},
			{b, acked(1), all(seen(b), acks(b, 1), finAcked(c)), nil, 0},
			{b, edits(empty(fin|ack), ackBy(1)), fins(b, 0), []EventKind{FlowFins}, 1},
			{c, edits(empty(ack), seqBy(1), ackBy(1)), all(acks(c, 1), finAcked(b), over), []EventKind{FlowEnded}, 0},
			{c, edits(empty(ack), seqBy(1), ackBy(1)), uncounted(c), nil, 0},
		}},
		{"backend first, with data", []endStep{
			{b, edits(empty(fin|ack), payload(70)), all(sends(b, 70), func(r *flowRecord) { r.Side[b].Next -= 70 }, fins(b, 70), first), nil, 0},
			{c, acked(71), all(seen(c), acks(c, 71), finAcked(b)), nil, 0},
			{c, edits(closes(c), ackBy(71)), fins(c, 0), []EventKind{FlowFins}, 1},
			{b, edits(empty(ack), seqBy(71), ackBy(1)), all(acks(b, 1), finAcked(c), over), []EventKind{FlowEnded}, 0},
		}},
		{"both at once", []endStep{
			{c, closes(c), fins(c, 0), nil, 0},
			{b, closes(b), fins(b, 0), []EventKind{FlowFins}, 1},
			{c, edits(empty(ack), seqBy(1), ackBy(1)), all(acks(c, 1), finAcked(b)), nil, 0},
			{b, edits(empty(ack), seqBy(1), ackBy(1)), all(acks(b, 1), finAcked(c), over), []EventKind{FlowEnded}, 0},
		}},
		{"sent again, and out of order", []endStep{
			{c, edits(closes(c), seqBy(500)), fins(c, 500), nil, 0},
			{c, edits(closes(c), seqBy(500)), nil, nil, 0},
			{b, acked(500), all(seen(b), acks(b, 500)), nil, 0},
			{b, acked(501), all(acks(b, 1), finAcked(c)), nil, 0},
		}},
		{"a reset after both", []endStep{
			{c, closes(c), fins(c, 0), nil, 0},
			{b, closes(b), fins(b, 0), []EventKind{FlowFins}, 1},
			{b, edits(empty(rst), seqBy(1)), func(r *flowRecord) { r.State, r.End, r.EndedNs = stateEnded, byResetOfClient+1, 1 }, []EventKind{FlowEnded}, 0},
		}},
		{"a reset after one", []endStep{
			{c, closes(c), fins(c, 0), nil, 0},
			{b, empty(rst), all(seen(b), func(r *flowRecord) { r.State, r.End, r.EndedNs = stateEnded, byResetOfClient+1, 1 }), []EventKind{FlowEnded}, 1},
		}},
		{"one that can't be", []endStep{
			{c, edits(closes(c), seqBy(labWindow+1)), nil, nil, 0},
			{c, edits(closes(c), ackBy(1)), nil, nil, 0},
			{c, edits(empty(fin)), nil, nil, 0},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inLab(t, func(t *testing.T, l *lab) {
				r := l.record()
				l.set(r)
				for i, s := range c.steps {
					ends := l.f.Ends()
					in := l.segment(s.side)
					s.edit(&in)
					if verdict, _ := l.run(l.f.objs.Forward, in.frame(), false); verdict != sentOn {
						t.Fatalf("packet %d: verdict %d", i, int32(verdict))
					}
					r.Side[s.side].Packets++
					if s.want != nil {
						s.want(&r)
					}
					l.recorded(r)
					if got := l.events(); !slices.Equal(got, s.events) {
						t.Errorf("packet %d: events %v, not %v", i, got, s.events)
					}
					if n := l.f.Ends() - ends; n != s.ends {
						t.Errorf("packet %d: %d ends, not %d", i, n, s.ends)
					}
				}
			})
		})
	}
}

// A client that begins anew from the same port: the flow that has ended leaves it
// the addresses, once.
func TestForwardSYNRetires(t *testing.T) {
	cases := []struct {
		name    string
		state   uint32
		side    int
		flags   byte
		verdict uint32
		gone    bool
	}{
		{"ended", stateEnded, ClientSide, syn, passed, true},
		{"ended, ECN asked for", stateEnded, ClientSide, syn | ece | cwr, passed, true},
		{"ended, acknowledges", stateEnded, ClientSide, syn | ack, sentOn, false},
		{"ended, backend", stateEnded, BackendSide, syn, sentOn, false},
		{"ended by us", stateReset, ClientSide, syn, passed, true},
		{"ended by us, backend", stateReset, BackendSide, syn, dropped, false},
		{"live", stateForwarded, ClientSide, syn, sentOn, false},
		{"watched", stateWatched, ClientSide, syn, passed, false},
	}
	inLab(t, func(t *testing.T, outer *lab) {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				l := &lab{t, outer.f, outer.v}
				r := l.record()
				r.State = c.state
				l.set(r)
				s := l.segment(c.side)
				s.flags, s.payload, s.seq = c.flags, nil, s.seq+100000
				if verdict, _ := l.run(l.f.objs.Forward, s.frame(), false); verdict != c.verdict {
					t.Errorf("verdict %d, not %d", int32(verdict), int32(c.verdict))
				}
				keys := l.keys()
				var ref flowRef
				err := l.f.objs.FlowKeys.Lookup(keys[ClientSide], &ref)
				if gone := errors.Is(err, ebpf.ErrKeyNotExist); gone != c.gone {
					t.Errorf("the client's key: %v", err)
				}
				if flags := l.f.Flow(labSlot).Flags()&goneClient != 0; flags != c.gone {
					t.Errorf("it says that the key is gone: %v", flags)
				}
				must(t, 0, l.f.objs.FlowKeys.Lookup(keys[BackendSide], &ref))
			})
		}
	})
}

// A number that Enlist refused because another flow has the addresses is given back
// without that flow's keys.
func TestForwardReleaseOfRefused(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.set(l.record())
		flow, ok := l.f.Reserve()
		if !ok || flow == labSlot {
			t.Fatal("no number", flow, ok)
		}
		refused := l.record()
		refused.State, refused.Index = stateFree, flow
		l.f.records.at(flow).raw = refused
		l.f.Release(flow)
		for side, key := range l.keys() {
			var ref flowRef
			if err := l.f.objs.FlowKeys.Lookup(key, &ref); err != nil || ref.Slot != labSlot {
				t.Errorf("side %d of the other flow: %+v, %v", side, ref, err)
			}
		}
	})
}

// What comes of a flow that was reset is dropped, and told of now and then.
func TestForwardAfterReset(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		r := l.record()
		r.State = stateReset
		l.set(r)
		for i, events := range [][]EventKind{{FlowAsked}, nil} { // within 10 ms, or told of again
			s := l.segment(BackendSide)
			s.ack += uint32(7 * i)
			if verdict, _ := l.run(l.f.objs.Forward, s.frame(), false); verdict != dropped {
				t.Errorf("verdict %d", int32(verdict))
			}
			got := l.events()
			if i == 0 && !slices.Equal(got, events) {
				t.Errorf("events %v", got)
			}
			if asked := l.f.Flow(labSlot).ResetPoint(BackendSide).Asked; len(got) > 0 && asked != s.ack {
				t.Errorf("asked at %d, not %d", asked, s.ack)
			}
		}
		s := l.segment(ClientSide)
		s.flags = rst
		if verdict, _ := l.run(l.f.objs.Forward, s.frame(), false); verdict != dropped || len(l.events()) > 0 {
			t.Errorf("a reset: verdict %d, or told of", int32(verdict))
		}
	})
}
