// SPDX-License-Identifier: Apache-2.0

package load

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestHistQuantilesAreWithinOnePercent(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var h, a, b Hist
	var values []float64
	for i := range 100_000 {
		v := math.Floor(math.Exp(random.Float64() * 20)) // 1 ns to half a second, even on a logarithmic scale
		values = append(values, v)
		h.Add(int64(v))
		if i%2 == 0 {
			a.Add(int64(v))
		} else {
			b.Add(int64(v))
		}
	}
	a.Merge(&b)
	slices.Sort(values)
	for _, q := range []float64{.001, .1, .5, .9, .99, .999, 1} {
		want := values[max(int(q*float64(len(values))+.5), 1)-1]
		for name, got := range map[string]float64{"one": h.Quantile(q), "merged": a.Quantile(q)} {
			if math.Abs(got-want) > want*.01 {
				t.Errorf("%s: quantile %g is %g, want %g", name, q, got, want)
			}
		}
	}
	if got := h.Summary(); got.Max != values[len(values)-1]/1e3 || got != a.Summary() {
		t.Errorf("summaries: %+v and %+v, greatest value %g ns", got, a.Summary(), values[len(values)-1])
	}
}

func TestHistEdges(t *testing.T) {
	var h Hist
	if h.Quantile(.5) != 0 || h.Summary() != (Latency{}) {
		t.Error("an empty histogram is not zero")
	}
	h.Add(-1)
	h.Add(math.MaxInt64)
	if got := h.Quantile(.5); got != 0 {
		t.Errorf("median of nothing and much: %g", got)
	}
	if got := h.Quantile(1); math.Abs(got-math.MaxInt64) > math.MaxInt64*.01 {
		t.Errorf("the longest time there is: %g", got)
	}
}
