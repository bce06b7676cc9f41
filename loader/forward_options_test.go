// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// Timestamps and SACK blocks wherever they stand, among options that mean nothing
// to us, and what is malformed.
func TestForwardOptions(t *testing.T) {
	const (
		val, echo = 7000, 3000
		early     = 999 // from before the cut: it counts as the first that was sent
	)
	type layout struct {
		name    string
		in, out func(side int) []byte // out computed with the additions
	}
	ts := func(val, ecr uint32) []byte { return timestamps(val, ecr)[2:] }
	var layouts []layout
	add := func(name string, build func(val, ecr uint32, edge func(n uint32) uint32) []byte) {
		layouts = append(layouts, layout{
			name: name,
			in: func(side int) []byte {
				return build(val, echo+labTS[1-side], func(n uint32) uint32 { return n + labAdd[1-side] })
			},
			out: func(side int) []byte {
				return build(val+labTS[side], echo, func(n uint32) uint32 { return n })
			},
		})
	}
	none := func(build func() []byte) func(uint32, uint32, func(uint32) uint32) []byte {
		return func(uint32, uint32, func(uint32) uint32) []byte { return build() }
	}
	add("none", none(func() []byte { return nil }))
	for before := range 30 {
		add(fmt.Sprintf("timestamps at %d", before), func(v, e uint32, _ func(uint32) uint32) []byte { return padded(before, ts(v, e)) })
	}
	for blocks := 1; blocks <= 4; blocks++ {
		for before := range 4 {
			add(fmt.Sprintf("%d blocks at %d", blocks, before), func(_, _ uint32, edge func(uint32) uint32) []byte {
				var edges []uint32
				for i := range uint32(2 * blocks) {
					edges = append(edges, edge(0xffff_fff0+i*7))
				}
				return padded(before, sack(edges...))
			})
		}
		if blocks == 4 {
			continue // beside timestamps there is room for three
		}
		for _, before := range []int{0, 2, 4} {
			if before+10+2+8*blocks > 40 {
				continue
			}
			add(fmt.Sprintf("timestamps at %d, then %d blocks, the first of D-SACK", before, blocks), func(v, e uint32, edge func(uint32) uint32) []byte {
				edges := []uint32{edge(100), edge(200)} // far below what is acknowledged
				for i := range uint32(2 * (blocks - 1)) {
					edges = append(edges, edge(labNext[0]+i*1448))
				}
				return padded(before, ts(v, e), sack(edges...))
			})
			add(fmt.Sprintf("%d blocks, then timestamps at the end, from %d", blocks, before), func(v, e uint32, edge func(uint32) uint32) []byte {
				edges := make([]uint32, 2*blocks)
				for i := range edges {
					edges[i] = edge(uint32(i))
				}
				return padded(before, sack(edges...), ts(v, e))
			})
		}
	}
	add("unknown ones around", func(v, e uint32, _ func(uint32) uint32) []byte {
		return padded(0, []byte{254, 7, 1, 2, 8, 10, 5}, ts(v, e), []byte{3, 3, 7}, []byte{30, 4, 8, 10})
	})
	add("behind the end of options", none(func() []byte { return slices.Concat([]byte{1, 0}, ts(1, 2), ts(3, 4)) }))
	add("a length of 0", none(func() []byte { return padded(0, []byte{254, 0}, ts(1, 2)) }))
	add("a length of 1", none(func() []byte { return padded(0, []byte{254, 1}, ts(1, 2)) }))
	add("a length too long", none(func() []byte { return padded(0, []byte{254, 30}, ts(1, 2)) }))
	add("a length missing", none(func() []byte { return []byte{1, 1, 1, 8} }))
	add("timestamps of another length", none(func() []byte { return padded(0, []byte{8, 9, 1, 2, 3, 4, 5, 6, 7}) }))
	add("timestamps cut short", none(func() []byte { return []byte{1, 1, 1, 8, 10, 0, 0, 0} }))
	add("blocks cut short", none(func() []byte { return []byte{1, 5, 10, 0, 0, 0, 0, 1} }))
	add("a block of half", func(_, _ uint32, edge func(uint32) uint32) []byte { return padded(0, sack(edge(9))) })
	add("no block", none(func() []byte { return []byte{5, 2, 1, 1} }))
	add("forty bytes of padding", none(func() []byte { return slices.Repeat([]byte{1}, 40) }))
	layouts = append(layouts,
		layout{"an echo from before the cut", func(side int) []byte { return timestamps(val, early+labTS[1-side]) },
			func(side int) []byte { return timestamps(val+labTS[side], early+1) }},
		layout{"the same in another layout", func(side int) []byte { return padded(1, ts(val, early+labTS[1-side])) },
			func(side int) []byte { return padded(1, ts(val+labTS[side], early+1)) }})

	inLab(t, func(t *testing.T, l *lab) {
		for _, o := range layouts {
			for side, name := range []string{"client", "backend"} {
				t.Run(name+"/"+o.name, func(t *testing.T) {
					l := &lab{t, l.f, l.v}
					l.set(l.record())
					s := l.segment(side)
					s.options = o.in(side)
					verdict, out := l.run(l.f.objs.Forward, s.frame(), false)
					if verdict != sentOn {
						t.Fatalf("verdict %d", int32(verdict))
					}
					want := l.translated(side, s)
					want.options = o.out(side)
					l.same(out, want)
				})
			}
		}
	})
}

// A window is never more than it was, unless it would be closed, and is as much as
// can be said; for all pairs of scales, both ways.
func TestForwardWindows(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		windows := []uint16{0, 1, 2, 3, 1023, 1024, 16383, 16384, 32768, 65534, 65535}
		for range 5 {
			windows = append(windows, uint16(rand.Uint32()))
		}
		for in := range uint8(15) {
			for out := range uint8(15) {
				for _, n := range windows {
					side := int(n+uint16(in)+uint16(out)) % 2
					r := l.record()
					r.Side[side].ScaleIn, r.Side[side].ScaleOut = in, out
					l.set(r)
					s := l.segment(side)
					s.window = n
					_, b := l.run(l.f.objs.Forward, s.frame(), false)
					_, l4 := headers(b)
					if len(b) < l4+16 || !sums(slices.Clone(b)) {
						t.Fatalf("scales %d, %d, window %d: a wrong packet", in, out, n)
					}
					got := uint64(b[l4+14])<<8 | uint64(b[l4+15])
					was, is, unit := uint64(n)<<in, got<<out, uint64(1)<<out
					switch {
					case (n == 0) != (got == 0):
						t.Fatalf("scales %d, %d: %d becomes %d", in, out, n, got)
					case is > was && got != 1:
						t.Fatalf("scales %d, %d: %d bytes become more: %d", in, out, was, is)
					case got < 65535 && is+unit <= was:
						t.Fatalf("scales %d, %d: %d bytes become %d, though more can be said", in, out, was, is)
					}
					// Acknowledgements that the window is counted from aren't touched by it.
					edge := uint32(l.record().Side[side].Acked) + uint32(was)
					if old := l.record().Side[side].Edge; int32(edge-old) < 0 {
						edge = old
					}
					if e := l.f.records.at(labSlot).raw.Side[side].Edge; e != edge {
						t.Fatalf("scale %d, window %d: edge %d, not %d", in, n, e, edge)
					}
				}
			}
		}
	})
}

// Packets of all kinds at random: each is sent on as the words of the record say,
// with its checksums right, odd lengths, wraps and urgent pointers included.
func TestForwardAnyPacket(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		for range 3000 {
			side := rand.IntN(2)
			r := l.record()
			for i := range 2 {
				d := &r.Side[i]
				d.SeqAdd, d.TsvalAdd = rand.Uint32(), rand.Uint32()
				r.Side[1-i].AckAdd, r.Side[1-i].TsecrAdd = -d.SeqAdd, -d.TsvalAdd
				r.Side[1-i].TsecrMin = d.TsvalAdd + rand.Uint32()
			}
			l.set(r)
			s := l.segment(side)
			s.seq, s.ack, s.window = rand.Uint32(), rand.Uint32(), uint16(rand.Uint32())
			s.flags, s.ae, s.urgent = byte(rand.Uint32()), rand.IntN(8) == 0, uint16(rand.Uint32())
			s.ttl = byte(2 + rand.IntN(254))
			s.payload = make([]byte, rand.IntN(1500))
			for i := range s.payload {
				s.payload[i] = byte(rand.Uint32())
			}
			d := r.Side[side]
			echo := rand.Uint32()
			s.options = timestamps(s.seq+s.ack, echo)
			if s.flags&syn == 0 {
				s.options = padded(rand.IntN(4), s.options, sack(s.seq, echo))
			}
			verdict, out := l.run(l.f.objs.Forward, s.frame(), false)
			if verdict != sentOn {
				t.Fatalf("verdict %d for %+v", int32(verdict), s)
			}
			want := l.translated(side, s)
			want.seq, want.ack = s.seq+d.SeqAdd, s.ack
			ecr := uint32(0)
			if s.flags&ack != 0 {
				want.ack = s.ack + d.AckAdd
				if ecr = echo; int32(ecr-d.TsecrMin) < 0 {
					ecr = d.TsecrMin
				}
				ecr += d.TsecrAdd
			}
			put := func(at int, n uint32) { copy(want.options[at:], timestamps(n, 0)[4:8]) }
			want.options = slices.Clone(s.options)
			at := slices.Index(want.options, 8)
			for want.options[at+1] != 10 {
				t.Fatal("the test doesn't find its own option")
			}
			put(at+2, s.seq+s.ack+d.TsvalAdd)
			put(at+6, ecr)
			if s.flags&syn == 0 {
				put(at+12, s.seq+d.AckAdd)
				put(at+16, echo+d.AckAdd)
			} else {
				want.window = s.window // never scaled
			}
			l.same(out, want)
			if t.Failed() {
				t.Fatalf("%+v", s)
			}
		}
	})
}

// The sum of a whole packet that a device made goes on being right.
func TestForwardKeepsDevicesSum(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		needCompleteSums(t, l)
		for side := range 2 {
			for _, o := range [][]byte{nil, timestamps(7, 8), padded(1, timestamps(7, 8)), sack(1, 2)} {
				l.set(l.record())
				s := l.segment(side)
				s.options = padded(0, o)
				s.flags |= urg
				s.urgent = 3
				l.runComplete(l.f.objs.Forward, s.frame(), sentOn)
			}
		}
	})
}
