// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"
)

// packetRow is one packet and what becomes of it. The flow is forwarded, the packet
// the client's next one, unless the row says otherwise.
type packetRow struct {
	name    string
	state   uint32 // 0: forwarded
	set     func(*flowRecord)
	side    int
	only    string // family
	edit    func(s *segment)
	mangle  func(b []byte, l4 int) []byte
	gso     bool
	verdict uint32
	counts  string            // words
	out     func(s *segment)  // what differs from the plain translation
	want    func(*flowRecord) // of the record's, besides the count of packets
	follow  bool              // the program follows it: the packet counts
	events  []EventKind
}

// runRow is what every row has in common.
func (l *lab) runRow(row packetRow, r flowRecord) {
	l.t.Helper()
	if row.state != 0 {
		r.State = row.state
	}
	if row.set != nil {
		row.set(&r)
	}
	l.set(r)
	before := l.counts()
	s := l.segment(row.side)
	if row.edit != nil {
		row.edit(&s)
	}
	in := s.frame()
	if row.mangle != nil {
		_, l4 := headers(in)
		in = row.mangle(in, l4)
	}
	verdict, out := l.run(l.f.objs.Forward, slices.Clone(in), row.gso)
	if verdict != row.verdict {
		l.t.Fatalf("verdict %d, not %d; counts %v", int32(verdict), int32(row.verdict), l.counts())
	}
	l.counted(before, strings.Fields(row.counts)...)
	switch {
	case verdict == sentOn && row.mangle == nil:
		want := l.translated(row.side, s)
		want.options = plain(row.side, s.flags)
		if row.out != nil {
			row.out(&want)
		}
		l.same(out, want)
	case verdict == passed && !slices.Equal(in, out):
		l.t.Errorf("changed on its way up:\n%x\n%x", in, out)
	}
	if row.follow {
		r.Side[row.side].Packets++
	}
	if row.want != nil {
		row.want(&r)
	}
	l.recorded(r)
	if got := l.events(); !slices.Equal(got, row.events) {
		l.t.Errorf("events %v, not %v", got, row.events)
	}
}

func runRows(t *testing.T, rows []packetRow) {
	inLab(t, func(t *testing.T, l *lab) {
		for _, row := range rows {
			if row.only != "" && row.only != l.v.name {
				continue
			}
			t.Run(row.name, func(t *testing.T) {
				l := &lab{t, l.f, l.v}
				l.runRow(row, l.record())
			})
		}
	})
}

// putIPLength writes a total length less than what is there, or more, and mends the
// header's checksum.
func putIPLength(more int) func(b []byte, l4 int) []byte {
	return func(b []byte, l4 int) []byte {
		at := linkHeader + 4
		if v4, _ := headers(b); v4 {
			at = linkHeader + 2
		}
		binary.BigEndian.PutUint16(b[at:], uint16(int(binary.BigEndian.Uint16(b[at:]))+more))
		return mendIP(b)
	}
}

func mendIP(b []byte) []byte {
	if v4, l4 := headers(b); v4 {
		ip := b[linkHeader:l4]
		ip[10], ip[11] = 0, 0
		binary.BigEndian.PutUint16(ip[10:], ^sum16(ip, 0))
	}
	return b
}

func ipByte(at int, to byte) func(b []byte, l4 int) []byte {
	return func(b []byte, _ int) []byte {
		b[linkHeader+at] = to
		return mendIP(b)
	}
}

func tcpByte(at int, to byte) func(b []byte, l4 int) []byte {
	return func(b []byte, l4 int) []byte {
		b[l4+at] = to
		return b
	}
}

func cutAt(n int) func(b []byte, l4 int) []byte {
	return func(b []byte, l4 int) []byte { return b[:l4+n] }
}

// extended puts IPv6 extension headers in front of TCP's; the first byte of each is
// the one in front's next header.
func extended(first byte, headers ...[]byte) func(b []byte, l4 int) []byte {
	return func(b []byte, l4 int) []byte {
		b[linkHeader+6] = first
		out := slices.Concat(b[:l4], slices.Concat(headers...), b[l4:])
		binary.BigEndian.PutUint16(out[linkHeader+4:], uint16(len(out)-l4))
		return out
	}
}

func ipOptions(b []byte, l4 int) []byte {
	b[linkHeader] = 0x46
	binary.BigEndian.PutUint16(b[linkHeader+2:], uint16(len(b)+4-linkHeader))
	return mendIP(slices.Concat(b[:l4], []byte{1, 1, 1, 0}, b[l4:]))
}

// Packets that can't be translated: nothing of a forwarded flow goes up to a stack
// that would answer with a reset.
func TestForwardOddPackets(t *testing.T) {
	var rows []packetRow
	odd := func(name, only string, mangle func(b []byte, l4 int) []byte) {
		row := packetRow{name: name, only: only, mangle: mangle, verdict: dropped, counts: "odd"}
		rows = append(rows, row)
		row.side, row.name = BackendSide, name+", backend"
		rows = append(rows, row)
		row.state, row.name = stateEnded, name+", ended"
		rows = append(rows, row)
		row.state, row.name, row.counts = stateReset, name+", reset", "reset"
		rows = append(rows, row)
		row.verdict, row.counts = passed, ""
		row.state, row.name = stateWatched, name+", watched"
		rows = append(rows, row)
		row.state, row.name = stateArmed, name+", armed"
		rows = append(rows, row)
	}
	odd("truncated behind TCP's header", "", cutAt(40))
	odd("truncated in its options", "", cutAt(24))
	odd("no header of TCP", "", tcpByte(12, 0))
	odd("a header too short", "", tcpByte(12, 4<<4))
	odd("a header longer than the packet", "", func(b []byte, l4 int) []byte {
		b = putIPLength(-100)(b, l4)
		return tcpByte(12, 15<<4)(b[:len(b)-100], l4)
	})
	odd("a length of more than there is", "", putIPLength(1))
	odd("a length that ends in TCP's header", "", putIPLength(-101))
	odd("a length of 0", "v4", func(b []byte, _ int) []byte { b[linkHeader+2], b[linkHeader+3] = 0, 0; return mendIP(b) })
	odd("a length of 0", "v6", func(b []byte, _ int) []byte { b[linkHeader+4], b[linkHeader+5] = 0, 0; return b })
	odd("options of IP", "v4", ipOptions)
	odd("the first fragment", "v4", ipByte(6, 0x20))
	odd("hop-by-hop options", "v6", extended(0, []byte{6, 0, 1, 4, 0, 0, 0, 0}))
	odd("destination options", "v6", extended(60, []byte{6, 0, 1, 4, 0, 0, 0, 0}))
	odd("a routing header", "v6", extended(43, []byte{6, 0, 4, 0, 0, 0, 0, 0}))
	odd("an authentication header", "v6", extended(51, []byte{6, 4, 0, 0}, make([]byte, 20)))
	odd("the first fragment", "v6", extended(44, []byte{6, 0, 0, 1, 0, 0, 0, 9}))
	odd("an only fragment", "v6", extended(44, []byte{6, 0, 0, 0, 0, 0, 0, 9}))
	odd("three extension headers", "v6", extended(0, []byte{60, 0, 1, 4, 0, 0, 0, 0}, []byte{51, 1, 1, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		[]byte{51, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, []byte{6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}))
	runRows(t, rows)
}

// Packets that are nobody's: they go on as if the program weren't there.
func TestForwardForeignPackets(t *testing.T) {
	at := func(b []byte, at int, to byte) []byte { b[at] = to; return b }
	runRows(t, []packetRow{
		{name: "a later fragment", only: "v4", mangle: ipByte(7, 4), verdict: passed},
		{name: "a last fragment", only: "v4", mangle: func(b []byte, l4 int) []byte { return ipByte(6, 0)(ipByte(7, 1)(b, l4), l4) }, verdict: passed},
		{name: "a later fragment", only: "v6", mangle: extended(44, []byte{6, 0, 0, 8, 0, 0, 0, 9}), verdict: passed},
		{name: "a later fragment far off", only: "v6", mangle: extended(44, []byte{6, 0, 1, 0, 0, 0, 0, 9}), verdict: passed},
		{name: "eight extension headers and TCP", only: "v6", mangle: extended(60, slices.Repeat([]byte{60, 0, 1, 4, 0, 0, 0, 0}, 7), []byte{60, 0, 1, 4, 0, 0, 0, 0}), verdict: passed},
		{name: "an extension header cut short", only: "v6", mangle: func(b []byte, l4 int) []byte { return at(b, linkHeader+6, 60)[:l4+2] }, verdict: passed},
		{name: "an extension header that leads out", only: "v6", mangle: extended(60, []byte{6, 255, 1, 4, 0, 0, 0, 0}), verdict: passed},
		{name: "ESP", only: "v6", mangle: ipByte(6, 50), verdict: passed},
		{name: "UDP", only: "v4", mangle: ipByte(9, 17), verdict: passed},
		{name: "UDP", only: "v6", mangle: ipByte(6, 17), verdict: passed},
		{name: "a header of IP too short", only: "v4", mangle: ipByte(0, 0x44), verdict: passed},
		{name: "version 7", mangle: ipByte(0, 0x75), verdict: passed},
		{name: "no ports", mangle: cutAt(3), verdict: passed},
		{name: "half a header of TCP", mangle: cutAt(12), verdict: passed},
		{name: "tagged with a VLAN", mangle: func(b []byte, _ int) []byte {
			return slices.Concat(b[:12], []byte{0x81, 0, 0, 5}, b[12:])
		}, verdict: passed},
		{name: "another host's", mangle: func(b []byte, _ int) []byte { return at(b, 5, 9) }, verdict: passed},
		{name: "to all", mangle: func(b []byte, _ int) []byte { copy(b, []byte{255, 255, 255, 255, 255, 255}); return b }, verdict: passed},
		{name: "another port", edit: func(s *segment) { s.src = portOf(s.src, 1) }, verdict: passed},
		{name: "another port of ours", edit: func(s *segment) { s.dst = portOf(s.dst, 1) }, verdict: passed},
		{name: "the other way round", edit: func(s *segment) { s.src, s.dst = s.dst, s.src }, verdict: passed},
		{name: "of a flow that is being taken out", set: func(r *flowRecord) { r.State = stateFree }, verdict: passed},
	})
}

// Hops run out, and are counted down.
func TestForwardHops(t *testing.T) {
	ttl := func(n byte) func(*segment) { return func(s *segment) { s.ttl = n } }
	runRows(t, []packetRow{
		{name: "0", edit: ttl(0), verdict: dropped, counts: "ttl", follow: true, want: sends(ClientSide, 100)},
		{name: "1", edit: ttl(1), verdict: dropped, counts: "ttl", follow: true, want: sends(ClientSide, 100)},
		{name: "2", edit: ttl(2), verdict: sentOn, counts: "sent", follow: true, want: sends(ClientSide, 100)},
		{name: "255", edit: ttl(255), verdict: sentOn, counts: "sent", follow: true, want: sends(ClientSide, 100)},
	})
}
