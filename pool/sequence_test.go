// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// A sequence is stepAll, from any state that has no effective weight below
// its weight.
func TestSequenceIsTheRoundRobin(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 11))
	for range 300 {
		standings := make([]standing, 1+random.IntN(60))
		kinds := 1 + random.Int64N(5)
		for i := range standings {
			w := 1 + random.Int64N(kinds)*random.Int64N(1000)
			standings[i] = standing{current: random.Int64N(50) - 25, effective: w, weight: w}
		}
		q := newSequence(standings)
		for step := range 3000 {
			want, total, full := stepAll(standings)
			if got := q.next(); got != want || q.total != total || !full {
				t.Fatalf("%d backends, step %d: pick %d of a total of %d, want %d of %d", len(standings), step, got, q.total, want, total)
			}
		}
	}
}

// A window over a pool whose backends climb back from failures is that of
// stepAll alone.
func TestWindowOfBackendsThatClimb(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 5))
	for range 200 {
		standings := make([]standing, 1+random.IntN(30))
		for i := range standings {
			w := 1 + random.Int64N(40)
			standings[i] = standing{current: random.Int64N(50) - 25, effective: random.Int64N(w + 1), weight: w, b: &Backend{ID: uint32(i)}}
		}
		w := window{standings: slices.Clone(standings)}
		w.compute()
		if len(w.picks) != windowPicks {
			t.Fatalf("%d picks", len(w.picks))
		}
		for n := range w.picks {
			best, total, _ := stepAll(standings)
			if w.picks[n] != standings[best].b || w.totals[n] != total || w.ids[n] != uint32(best) {
				t.Fatalf("pick %d is %d of a total of %d, want %d of %d", n, w.ids[n], w.totals[n], best, total)
			}
		}
	}
}

// Very many backends of as many weights: a window costs a bounded time.
func TestWindowIsBoundedInWork(t *testing.T) {
	for _, climbs := range []int64{0, 1} {
		w := window{}
		const n = 4096
		for i := range int64(n) {
			w.standings = append(w.standings, standing{effective: 1 + i - min(climbs, i), weight: 1 + i, b: &Backend{ID: uint32(i)}})
		}
		w.compute()
		if len(w.picks) == 0 || len(w.picks)*n > 2*windowWork {
			t.Errorf("climbing %d: %d picks among %d", climbs, len(w.picks), n)
		}
	}
}

func BenchmarkWindow(b *testing.B) {
	w := window{}
	for i := range 1000 {
		w.standings = append(w.standings, standing{effective: 1, weight: 1, b: &Backend{ID: uint32(i)}})
	}
	for b.Loop() {
		w.compute()
	}
}
