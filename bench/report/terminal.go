// SPDX-License-Identifier: Apache-2.0

// Package report shows runs: on a terminal, and as the documentation's tables and plots.
package report

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
	"time"

	"sluice/bench/result"
)

// Terminal reports progress as it goes, and a table for each workload.
type Terminal struct {
	Out   io.Writer
	Live  bool // Out is a terminal: progress overwrites itself
	began time.Time
}

// NewTerminal writes to out.
func NewTerminal(out io.Writer, live bool) *Terminal {
	return &Terminal{Out: out, Live: live, began: time.Now()}
}

// Bed is told what is started.
func (t *Terminal) Bed(text string) {
	fmt.Fprintf(t.Out, "\n== %s (%s)\n", text, t.age())
}

func (t *Terminal) age() string { return time.Since(t.began).Round(time.Second).String() }

// Sample is told what is measured next.
func (t *Terminal) Sample(s *result.Series, contender string, round, rounds int) {
	if t.Live {
		fmt.Fprintf(t.Out, "\r\033[K%s  %s: round %d of %d, %s", t.age(), s.Name, round, rounds, contender)
	} else if len(s.Samples) == 0 {
		fmt.Fprintf(t.Out, "%s  %s: %d rounds\n", t.age(), s.Name, rounds)
	}
}

// Series prints the table of a workload.
func (t *Terminal) Series(s *result.Series) {
	if t.Live {
		fmt.Fprint(t.Out, "\r\033[K")
	}
	Table(t.Out, s)
}

// Table prints a workload: a line for each contender.
func Table(out io.Writer, s *result.Series) {
	fmt.Fprintf(out, "\n%s  [%s]\n", s.Title, s.Name)
	tab := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(tab, "contender\t%s\tmin .. max\tx direct\t", s.Unit)
	for _, m := range s.Extra {
		fmt.Fprintf(tab, "%s %s\t", m.Name, m.Unit)
	}
	fmt.Fprintln(tab, " remarks")
	for _, name := range Order(s) {
		st := s.Stat(s.Metric, name)
		fmt.Fprintf(tab, "%s\t%s\t%s .. %s\t%s\t", name, Number(st.Median), Number(st.Min), Number(st.Max), Ratio(st.Ratio))
		for _, m := range s.Extra {
			fmt.Fprintf(tab, "%s\t", Number(s.Stat(m.Name, name).Median))
		}
		fmt.Fprintln(tab, " "+Remarks(st))
	}
	tab.Flush()
}

// Goals prints a line for each goal.
func Goals(out io.Writer, goals []result.Goal) {
	if len(goals) == 0 {
		return
	}
	fmt.Fprint(out, "\nGoals\n")
	tab := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, g := range goals {
		fmt.Fprintf(tab, "%s\t%s\t%s\twanted %s\t%s\n", g.Variant, g.What, g.Got(), g.Want(), g.State())
	}
	tab.Flush()
}

// Order is the contenders of a series in the order of the first round.
func Order(s *result.Series) []string {
	var names []string
	for _, sample := range s.Samples {
		if sample.Round == 0 {
			names = append(names, sample.Contender)
		}
	}
	return names
}

// Remarks are marks, what was handed over, and failures, on one line.
func Remarks(st result.Stat) string {
	parts := append([]string(nil), st.Marks...)
	if st.Cuts != nil {
		parts = append(parts, st.Cuts.String())
	}
	if n := len(st.Errors); n > 0 {
		parts = append(parts, fmt.Sprintf("FAILED %d of %d: %s", n, n+st.N, strings.ReplaceAll(st.Errors[0], "\n", "; ")))
	}
	return strings.Join(parts, ", ")
}

// Ratio is a dash where there is none.
func Ratio(v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return "-"
	}
	return fmt.Sprintf("%.2f", v)
}

// Number has three digits that mean something.
func Number(v float64) string {
	a := math.Abs(v)
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "-"
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}
