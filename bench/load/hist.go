// SPDX-License-Identifier: Apache-2.0

package load

import "math/bits"

// subBits gives 128 steps for each power of two: an error below 0.8 %.
const subBits = 7

// Hist is a log-linear histogram of nanoseconds. The zero value is empty.
// It belongs to one goroutine.
type Hist struct {
	counts [(64 - subBits) << subBits]uint32
	n      uint64
	sum    uint64
	max    uint64
}

// Add counts one value, in nanoseconds; below zero counts as zero.
func (h *Hist) Add(ns int64) {
	v := uint64(max(ns, 0))
	h.counts[bucket(v)]++
	h.n++
	h.sum += v
	h.max = max(h.max, v)
}

// Merge adds what o has.
func (h *Hist) Merge(o *Hist) {
	for i, c := range o.counts {
		h.counts[i] += c
	}
	h.n += o.n
	h.sum += o.sum
	h.max = max(h.max, o.max)
}

// Quantile is the value, in nanoseconds, that the fraction q of all is not above.
func (h *Hist) Quantile(q float64) float64 {
	if h.n == 0 {
		return 0
	}
	rank := max(uint64(q*float64(h.n)+0.5), 1)
	var seen uint64
	for i, c := range h.counts {
		if seen += uint64(c); seen >= rank {
			return min(middle(i), float64(h.max))
		}
	}
	return float64(h.max)
}

// Summary is in microseconds.
func (h *Hist) Summary() Latency {
	if h.n == 0 {
		return Latency{}
	}
	return Latency{
		P50: h.Quantile(.50) / 1e3, P90: h.Quantile(.90) / 1e3, P99: h.Quantile(.99) / 1e3,
		P999: h.Quantile(.999) / 1e3, Max: float64(h.max) / 1e3, Mean: float64(h.sum) / float64(h.n) / 1e3,
	}
}

// bucket is the place of v: exact below 1<<subBits, then 1<<subBits steps for each doubling.
func bucket(v uint64) int {
	shift := max(bits.Len64(v)-subBits-1, 0)
	return shift<<subBits + int(v>>shift)
}

func middle(i int) float64 {
	if i < 2<<subBits {
		return float64(i)
	}
	shift := i>>subBits - 1
	low := uint64(i-shift<<subBits) << shift
	return float64(low) + float64(uint64(1)<<shift)/2
}
