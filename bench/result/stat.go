// SPDX-License-Identifier: Apache-2.0

package result

import (
	"math"
	"slices"
)

// direct is the contender that ratios refer to.
const direct = "direct"

// Stat sums up one metric of one contender.
type Stat struct {
	N                int
	Median, Min, Max float64
	Ratio            float64 // median of the ratios to direct in the same round; NaN without
	Marks            []string
	Errors           []string
	Cuts             *Cuts // of the sessions that were handed over; nil: the contender does no such thing
}

// Median is NaN for no values.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	v := slices.Sorted(slices.Values(values))
	if mid := len(v) / 2; len(v)%2 == 1 {
		return v[mid]
	} else {
		return (v[mid-1] + v[mid]) / 2
	}
}

// Rounds are the values of a metric by round and contender. Samples that
// failed, and those without the metric, are left out.
func (s *Series) Rounds(metric string) map[int]map[string]float64 {
	rounds := map[int]map[string]float64{}
	for _, sample := range s.Samples {
		v, ok := sample.Values[metric]
		if !ok || sample.Error != "" {
			continue
		}
		if rounds[sample.Round] == nil {
			rounds[sample.Round] = map[string]float64{}
		}
		rounds[sample.Round][sample.Contender] = v
	}
	return rounds
}

// Values are those of one contender, in the order of rounds.
func (s *Series) Values(metric, contender string) []float64 {
	var values []float64
	for _, sample := range s.Samples {
		if v, ok := sample.Values[metric]; ok && sample.Error == "" && sample.Contender == contender {
			values = append(values, v)
		}
	}
	return values
}

// Stat sums up.
func (s *Series) Stat(metric, contender string) Stat {
	values := s.Values(metric, contender)
	st := Stat{N: len(values), Median: Median(values), Min: math.NaN(), Max: math.NaN()}
	if len(values) > 0 {
		st.Min, st.Max = slices.Min(values), slices.Max(values)
	}
	st.Ratio = s.PerRound(metric, func(round map[string]float64) float64 {
		return get(round, contender) / get(round, direct)
	})
	for _, sample := range s.Samples {
		if sample.Contender != contender {
			continue
		}
		st.Marks = append(st.Marks, sample.Marks...)
		if sample.Error != "" {
			st.Errors = append(st.Errors, sample.Error)
		}
	}
	st.Cuts = s.Cuts(contender)
	slices.Sort(st.Marks)
	st.Marks = slices.Compact(st.Marks)
	return st
}

// PerRound is the median over the rounds of f, which is given a round's
// values; rounds in which it is not a number don't count.
func (s *Series) PerRound(metric string, f func(map[string]float64) float64) float64 {
	var values []float64
	for _, round := range s.Rounds(metric) {
		if v := f(round); !math.IsNaN(v) && !math.IsInf(v, 0) {
			values = append(values, v)
		}
	}
	return Median(values)
}

// get is NaN for a contender that the round lacks.
func get(round map[string]float64, contender string) float64 {
	if v, ok := round[contender]; ok {
		return v
	}
	return math.NaN()
}
