// SPDX-License-Identifier: Apache-2.0

package loader

import "github.com/cilium/ebpf"

// Outcome is how often a program did one thing since it was loaded.
type Outcome struct {
	Name  string // as in the C source, in lower case
	Count uint64
}

// dispatchOutcomes are enum dispatch_outcome of bpf/dispatch_maps.h, in order.
func dispatchOutcomes() []string {
	return []string{"picked", "remembered", "exhausted", "not_stored", "stray"}
}

// spliceOutcomes are enum splice_outcome of bpf/splice_maps.h, in order.
func spliceOutcomes() []string {
	return []string{
		"redirected", "passed_over", "passed_behind", "passed_hold", "passed_no_target", "passed_no_flow",
		"dropped_fin", "redirect_failed", "event_lost", "trimmed", "order_lost", "dropped_unread",
	}
}

// Outcomes are the program's counts by name, each of them, zero or not.
func (d *Dispatch) Outcomes() []Outcome { return outcomes(d.objs.DispatchCounts, dispatchOutcomes()) }

// Outcomes are the verdict's counts by name, each of them, zero or not.
func (s *Splice) Outcomes() []Outcome { return outcomes(s.objs.SpliceCounts, spliceOutcomes()) }

func outcomes(m *ebpf.Map, names []string) []Outcome {
	n := readCounts(m)
	out := make([]Outcome, len(names))
	for i, name := range names {
		out[i] = Outcome{name, n(uint32(i))}
	}
	return out
}
