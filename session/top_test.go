// SPDX-License-Identifier: Apache-2.0

package session

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"sluice/stats"
)

// TestTop: the first flows in each order are those of a full sort, whatever the
// limit, with never more than the limit kept.
func TestTop(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, by := range []stats.FlowOrder{stats.NewestFirst, stats.MostBytes, stats.LongestIdle, stats.OldestFirst} {
		for _, n := range []int{0, 1, 2, 7, 100, 1000} {
			var all []Flow
			for id := n; id > 0; id-- {
				all = append(all, Flow{
					ID: uint64(id), FromClient: random.Uint64N(20), ToClient: random.Uint64N(20),
					Last: random.Int64N(30), Begun: int64(id) / 3,
				})
			}
			for _, limit := range []int{1, 2, 10, 999, 1000, 2000} {
				lists := [2]*Top{NewTop(limit, by), NewTop(limit, by)}
				for i, f := range all {
					more := lists[i%2].Add(f)
					if len(lists[i%2].Flows()) > limit {
						t.Fatalf("%s: %d kept, limit %d", by, len(lists[i%2].Flows()), limit)
					}
					if wantMore := by != stats.NewestFirst || i/2+1 < limit; more != wantMore && len(lists[i%2].Flows()) == i/2+1 {
						t.Fatalf("%s, limit %d: flow %d: wants more: %v", by, limit, i, more)
					}
				}
				want := slices.Clone(all)
				slices.SortStableFunc(want, func(a, b Flow) int {
					key := func(f Flow) int64 {
						switch by {
						case stats.MostBytes:
							return -int64(f.FromClient + f.ToClient)
						case stats.LongestIdle:
							return f.Last
						case stats.OldestFirst:
							return f.Begun
						}
						return -int64(f.ID)
					}
					return int(key(a) - key(b)) // newest first already
				})
				want = want[:min(n, limit)]
				got := FirstFlows([][]Flow{lists[0].Flows(), lists[1].Flows()}, limit, by)
				if fmt.Sprint(ids(got)) != fmt.Sprint(ids(want)) {
					t.Errorf("%s, %d flows, limit %d:\n%v, want\n%v", by, n, limit, ids(got), ids(want))
				}
			}
		}
	}
}

func ids(list []Flow) (out []uint64) {
	for _, f := range list {
		out = append(out, f.ID)
	}
	return out
}
