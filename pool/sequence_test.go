// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// A sequence is stepSlots, from any state that has no effective weight below
// its weight.
func TestSequenceIsTheRoundRobin(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 11))
	for range 300 {
		slots := make([]slot, 1+random.IntN(60))
		kinds := 1 + random.Int64N(5)
		for i := range slots {
			w := 1 + random.Int64N(kinds)*random.Int64N(1000)
			slots[i] = slot{current: random.Int64N(50) - 25, effective: w, weight: w}
		}
		q := newSequence(slots)
		for step := range 3000 {
			want, total, full := stepSlots(slots)
			if got := q.next(); got != want || q.total != total || !full {
				t.Fatalf("%d backends, step %d: pick %d of a total of %d, want %d of %d", len(slots), step, got, q.total, want, total)
			}
		}
	}
}

// A window over a pool whose backends climb back from failures is that of
// stepSlots alone.
func TestWindowOfBackendsThatClimb(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 5))
	for range 200 {
		slots := make([]slot, 1+random.IntN(30))
		for i := range slots {
			w := 1 + random.Int64N(40)
			slots[i] = slot{current: random.Int64N(50) - 25, effective: random.Int64N(w + 1), weight: w, b: &Backend{ID: uint32(i)}}
		}
		w := window{calc: slices.Clone(slots)}
		w.compute()
		if len(w.picks) != windowPicks {
			t.Fatalf("%d picks", len(w.picks))
		}
		for n := range w.picks {
			best, total, _ := stepSlots(slots)
			if w.picks[n] != slots[best].b || w.totals[n] != total || w.ids[n] != uint32(best) {
				t.Fatalf("pick %d is %d of a total of %d, want %d of %d", n, w.ids[n], w.totals[n], best, total)
			}
		}
	}
}

func BenchmarkWindow(b *testing.B) {
	w := window{}
	for i := range 1000 {
		w.calc = append(w.calc, slot{effective: 1, weight: 1, b: &Backend{ID: uint32(i)}})
	}
	for b.Loop() {
		w.compute()
	}
}
