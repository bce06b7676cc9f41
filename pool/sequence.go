// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"cmp"
	"container/heap"
)

// standing is the copy of one backend's state on which a window is computed.
type standing struct {
	current, effective, weight int64
	b                          *Backend
}

// stepAll is one pick of nginx's round robin, everybody being eligible. full
// says that every effective weight is the weight itself after it.
func stepAll(standings []standing) (best int, total int64, full bool) {
	full = true
	for i := range standings {
		s := &standings[i]
		s.current += s.effective
		total += s.effective
		if s.effective < s.weight {
			s.effective++
			full = full && s.effective == s.weight
		}
		if s.current > standings[best].current {
			best = i
		}
	}
	standings[best].current -= total
	return best, total, full
}

// sequence makes the picks of stepAll for as long as every effective weight
// is the weight itself, in a time that grows with the number of different
// weights and hardly with that of backends. Among backends of one weight the
// order of the current weights changes by the winner alone, as all others gain
// the same: so each weight has a heap, and a pick compares their tops.
type sequence struct {
	groups []*weightGroup
	steps  int64 // picks so far
	total  int64 // of all weights
}

// weightGroup is the backends of one weight, by what their current weights were
// at the sequence's beginning, less what they paid for picks: a heap, the
// largest and among equals the first in the file on top.
type weightGroup struct {
	weight int64
	items  []sequenceItem
}

type sequenceItem struct {
	current int64
	index   int
}

func newSequence(standings []standing) *sequence {
	q := &sequence{}
	byWeight := map[int64]*weightGroup{}
	for i, s := range standings {
		g := byWeight[s.weight]
		if g == nil {
			g = &weightGroup{weight: s.weight}
			byWeight[s.weight] = g
			q.groups = append(q.groups, g)
		}
		g.items = append(g.items, sequenceItem{s.current, i})
		q.total += s.weight
	}
	for _, g := range q.groups {
		heap.Init(g)
	}
	return q
}

// next is the index of the next pick, whose total is q.total.
func (q *sequence) next() int {
	q.steps++
	var best *weightGroup
	var most sequenceItem
	for _, g := range q.groups {
		top := g.items[0]
		top.current += q.steps * g.weight
		if best == nil || before(top, most) {
			best, most = g, top
		}
	}
	best.items[0].current -= q.total
	heap.Fix(best, 0)
	return most.index
}

func before(a, b sequenceItem) bool {
	return cmp.Or(cmp.Compare(b.current, a.current), cmp.Compare(a.index, b.index)) < 0
}

// The interface of container/heap; nothing is ever pushed or popped.

func (g *weightGroup) Len() int           { return len(g.items) }
func (g *weightGroup) Less(i, j int) bool { return before(g.items[i], g.items[j]) }
func (g *weightGroup) Swap(i, j int)      { g.items[i], g.items[j] = g.items[j], g.items[i] }
func (g *weightGroup) Push(any)           {}
func (g *weightGroup) Pop() any           { return nil }
