// SPDX-License-Identifier: Apache-2.0

package session

import (
	"cmp"
	"slices"

	"sluice/stats"
)

// compare is negative if a comes before b in the order. Of equal ones the newer
// comes first.
func (a *Flow) compare(b *Flow, by stats.FlowOrder) int {
	newer := cmp.Compare(b.ID, a.ID)
	switch by {
	case stats.MostBytes:
		return cmp.Or(cmp.Compare(b.FromClient+b.ToClient, a.FromClient+a.ToClient), newer)
	case stats.LongestIdle:
		return cmp.Or(cmp.Compare(a.Last, b.Last), newer)
	case stats.OldestFirst:
		return cmp.Or(cmp.Compare(a.Begun, b.Begun), newer)
	}
	return newer
}

// Top keeps the first of many flows in an order, never more than its limit.
type Top struct {
	limit int
	by    stats.FlowOrder
	heap  []Flow // the last of them at the root
}

// NewTop keeps limit flows, 1 at least.
func NewTop(limit int, by stats.FlowOrder) *Top { return &Top{limit: max(limit, 1), by: by} }

// Add shows it a flow; flows come newest first. False: no later one can be among
// the first any more.
func (t *Top) Add(f Flow) (more bool) {
	switch {
	case t.by == stats.NewestFirst:
		if len(t.heap) < t.limit {
			t.heap = append(t.heap, f)
		}
		return len(t.heap) < t.limit
	case len(t.heap) < t.limit:
		t.heap = append(t.heap, f)
		t.up(len(t.heap) - 1)
	case f.compare(&t.heap[0], t.by) < 0:
		t.heap[0] = f
		t.down(0)
	}
	return true
}

// Flows are those that it has kept, in no order.
func (t *Top) Flows() []Flow { return t.heap }

// later says whether the flow at i comes after the one at j.
func (t *Top) later(i, j int) bool { return t.heap[i].compare(&t.heap[j], t.by) > 0 }

func (t *Top) up(i int) {
	for i > 0 && t.later(i, (i-1)/2) {
		t.heap[i], t.heap[(i-1)/2] = t.heap[(i-1)/2], t.heap[i]
		i = (i - 1) / 2
	}
}

func (t *Top) down(i int) {
	for {
		last := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(t.heap); child++ {
			if t.later(child, last) {
				last = child
			}
		}
		if last == i {
			return
		}
		t.heap[i], t.heap[last] = t.heap[last], t.heap[i]
		i = last
	}
}

// FirstFlows are the first limit flows of all lists together, in this order.
func FirstFlows(lists [][]Flow, limit int, by stats.FlowOrder) []Flow {
	all := slices.Concat(lists...)
	slices.SortFunc(all, func(a, b Flow) int { return a.compare(&b, by) })
	return all[:min(len(all), limit)]
}
