// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"net/netip"
	"testing"

	"sluice/bpf"
)

type (
	flowRecord = bpf.ForwardFlowRecord
	flowRef    = bpf.ForwardFlowRef
)

func portOf(a netip.AddrPort, more uint16) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr(), a.Port()+more)
}

// seen is that a side's packet was believed, with no news in it.
func seen(side int) func(*flowRecord) {
	return func(r *flowRecord) { r.Side[side].SeenNs = 1 }
}

// sends is that so many new bytes of a side were.
func sends(side int, n uint32) func(*flowRecord) {
	return func(r *flowRecord) {
		s := &r.Side[side]
		s.SeenNs, s.DataNs = 1, 1
		s.Next += n
		if side == BackendSide {
			r.FirstNs = 1
		}
	}
}

// all does one after the other.
func all(changes ...func(*flowRecord)) func(*flowRecord) {
	return func(r *flowRecord) {
		for _, c := range changes {
			c(r)
		}
	}
}

// acks is that a side has acknowledged so many bytes more, with the usual window.
func acks(side int, n uint32) func(*flowRecord) {
	return func(r *flowRecord) {
		r.Side[side].Acked += uint64(n)
		r.Side[side].Edge += n
	}
}

// sent is that so many bytes of a side are under way.
func sent(side int, n uint32) func(*flowRecord) {
	return func(r *flowRecord) { r.Side[side].Next += n }
}

func empty(flags byte) func(*segment) {
	return func(s *segment) { s.flags, s.payload = flags, nil }
}

// edits does one after the other.
func edits(e ...func(*segment)) func(*segment) {
	return func(s *segment) {
		for _, f := range e {
			f(s)
		}
	}
}

func seqBy(n int) func(*segment) { return func(s *segment) { s.seq += uint32(n) } }
func ackBy(n int) func(*segment) { return func(s *segment) { s.ack += uint32(n) } }
func window(n uint16) func(*segment) {
	return func(s *segment) { s.window = n }
}

func payload(n int) func(*segment) {
	return func(s *segment) { s.payload = make([]byte, n) }
}

// Everything is sent on; believed is what an end would believe.
func TestForwardNumbers(t *testing.T) {
	var rows []packetRow
	for side, name := range []string{"client: ", "backend: "} {
		other := 1 - side
		row := func(what, counts string, edit func(*segment), set, want func(*flowRecord)) {
			rows = append(rows, packetRow{name: name + what, side: side, edit: edit, set: set, verdict: sentOn, counts: counts, follow: true, want: want})
		}
		old := func(n uint32) func(*flowRecord) { // of what the other side has acknowledged
			return all(sent(side, n), acks(other, n))
		}
		back := func(r *flowRecord) { sent(other, 1000)(r) }

		row("new data", "sent", nil, nil, sends(side, 100))
		row("an acknowledgement of nothing new", "sent", empty(ack), nil, seen(side))
		row("an acknowledgement of a part", "sent", edits(empty(ack), ackBy(400)), back, all(seen(side), acks(side, 400)))
		row("an acknowledgement of everything", "sent", ackBy(1000), back, all(sends(side, 100), acks(side, 1000)))
		row("an acknowledgement of what wasn't sent", "sent unsure", ackBy(1001), back, nil)
		row("an acknowledgement of half the numbers", "sent unsure", ackBy(1<<31-1), nil, nil)
		row("an acknowledgement a little old", "sent", ackBy(-100), nil, sends(side, 100))
		row("one as old as a window", "sent", ackBy(-labWindow), nil, sends(side, 100))
		row("one older than a window", "sent unsure", ackBy(-labWindow-1), nil, nil)
		row("without an acknowledgement", "sent unsure", func(s *segment) { s.flags = psh }, nil, nil)
		row("no flag at all", "sent unsure", func(s *segment) { s.flags = 0 }, nil, nil)
		row("a window that opens", "sent", edits(empty(ack), window(1024)), nil, all(seen(side), func(r *flowRecord) {
			r.Side[side].Edge += labWindow
			r.Side[side].Widest = 1024
		}))
		row("a window that closes", "sent", edits(empty(ack), window(0)), nil, seen(side))

		row("out of order", "sent", seqBy(5000), nil, sends(side, 5100))
		row("at the edge of the window", "sent", seqBy(labWindow), nil, sends(side, labWindow+100))
		row("beyond it", "sent unsure", seqBy(labWindow+1), nil, nil)
		row("half the numbers away", "sent unsure", seqBy(1<<31), nil, nil)
		row("half the numbers back", "sent unsure", seqBy(-1<<31+200), nil, nil)
		row("sent again, under way still", "sent", nil, sent(side, 100), seen(side))
		row("sent again in part", "sent", nil, sent(side, 40), sends(side, 60))
		row("sent again, acknowledged", "sent", nil, all(old(200)), nil)
		row("sent again, acknowledged up to its end", "sent", nil, old(100), seen(side))
		row("sent again, an acknowledgement of everything", "sent", ackBy(1000), all(old(200), back), nil)
		row("a keepalive", "sent", edits(empty(ack), seqBy(-1)), nil, seen(side))
		row("a keepalive with a byte", "sent", edits(payload(1), seqBy(-1)), nil, seen(side))
		row("a probe of a closed window", "sent", edits(empty(ack), seqBy(-1)), func(r *flowRecord) { r.Side[other].Edge -= labWindow }, seen(side))
		row("a probe of it with a byte", "sent", payload(1), func(r *flowRecord) { r.Side[other].Edge -= labWindow }, sends(side, 1))
		row("into a closed window", "sent unsure", seqBy(1), func(r *flowRecord) { r.Side[other].Edge -= labWindow }, nil)
		row("64 KiB less a header", "sent", payload(1400), nil, sends(side, 1400))
		row("urgent data", "sent", func(s *segment) { s.flags |= urg; s.urgent = 17 }, nil, sends(side, 100))
		row("an urgent pointer alone", "sent", func(s *segment) { s.urgent = 17 }, nil, sends(side, 100))
		row("a payload of odd length", "sent", payload(33), nil, sends(side, 33))
	}
	runRows(t, rows)
}

// Resets end a flow at exactly the numbers at which an end believes them; a SYN
// never does.
func TestForwardResets(t *testing.T) {
	var rows []packetRow
	for side, name := range []string{"client: ", "backend: "} {
		row := func(what, counts string, edit func(*segment), set, want func(*flowRecord), events ...EventKind) {
			rows = append(rows, packetRow{name: name + what, side: side, edit: edit, set: set, verdict: sentOn, counts: counts, follow: true, want: want, events: events})
		}
		ended := func(r *flowRecord) {
			r.State, r.End, r.EndedNs = stateEnded, byResetOfClient+uint32(side), 1
			r.Side[side].SeenNs = 1
		}
		under := sent(side, 3000)
		row("at the next number", "sent", empty(rst), nil, ended, FlowEnded)
		row("with an acknowledgement", "sent", empty(rst|ack), nil, ended, FlowEnded)
		row("at the highest that was sent", "sent", edits(empty(rst), seqBy(3000)), under, ended, FlowEnded)
		row("at the last that was acknowledged", "sent", empty(rst), under, ended, FlowEnded)
		row("in the window", "sent", edits(empty(rst), seqBy(1)), under, nil)
		row("in the window, behind all", "sent", edits(empty(rst), seqBy(3001)), under, nil)
		row("at the edge", "sent", edits(empty(rst), seqBy(labWindow)), nil, nil)
		row("beyond the window", "sent unsure", edits(empty(rst), seqBy(labWindow+1)), nil, nil)
		row("before the window", "sent", edits(empty(rst), seqBy(-2)), nil, nil)
		row("anywhere", "sent unsure", edits(empty(rst), seqBy(1<<31+77)), nil, nil)
		row("a SYN", "sent", empty(syn), nil, nil)
		row("a SYN with an acknowledgement", "sent", empty(syn|ack), nil, nil)
		row("a SYN outside", "sent unsure", edits(empty(syn), seqBy(1<<30+labWindow)), nil, nil)
	}
	runRows(t, rows)
}
