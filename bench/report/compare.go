// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"io"
	"text/tabwriter"

	"golang.org/x/perf/benchmath"

	"sluice/bench/result"
)

// Difference is how B differs from A in one metric.
type Difference struct {
	A, B  float64 // medians
	P     float64 // of the Mann-Whitney U test: how likely chance alone makes such a difference
	Alpha float64
	N     int // samples of the smaller side
}

// Significant says that it is not by chance.
func (d Difference) Significant() bool { return d.P < d.Alpha }

// Differ compares two sets of samples without an assumption on how they spread.
func Differ(a, b []float64) Difference {
	th := benchmath.DefaultThresholds
	cmp := benchmath.AssumeNothing.Compare(benchmath.NewSample(a, &th), benchmath.NewSample(b, &th))
	return Difference{A: result.Median(a), B: result.Median(b), P: cmp.P, Alpha: th.CompareAlpha, N: min(len(a), len(b))}
}

// Compare prints a line for each metric of each workload.
func Compare(out io.Writer, r *result.Run, title, a, b string) {
	fmt.Fprintf(out, "\n%s\n", title)
	tab := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "workload\tmetric\tA\tB\tB / A\t\tp\tsamples")
	for _, s := range r.Series {
		for _, m := range append([]result.Metric{{Name: s.Metric, Unit: s.Unit}}, s.Extra...) {
			va, vb := s.Values(m.Name, a), s.Values(m.Name, b)
			if len(va) == 0 || len(vb) == 0 {
				fmt.Fprintf(tab, "%s\t%s\tnot measured\n", s.Name, m.Name)
				continue
			}
			d := Differ(va, vb)
			fmt.Fprintf(tab, "%s\t%s %s\t%s\t%s\t%s\t%s\t%.3f\t%d\n", s.Name, m.Name, m.Unit, Number(d.A), Number(d.B),
				Ratio(d.B/d.A), verdict(s, m.Name, d), d.P, d.N)
		}
	}
	tab.Flush()
}

// verdict only judges the main metric: for the others nobody said which way is better.
func verdict(s *result.Series, metric string, d Difference) string {
	switch {
	case !d.Significant():
		return "~"
	case metric != s.Metric:
		return "differs"
	case (d.B > d.A) == s.More:
		return "better"
	default:
		return "WORSE"
	}
}
