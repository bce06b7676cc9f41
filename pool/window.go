// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"math"
	"slices"
	"time"

	"sluice/config"
)

const (
	// windowPicks is how many picks a window holds.
	windowPicks = 1024
	// windowWork bounds the steps of computing a window, so that a pool doesn't
	// hold its lock for more than a millisecond or so: each pick costs one for
	// each backend while some still climb back after failures, else one for each
	// different weight. A pool of very many has shorter windows.
	windowWork = 1 << 18
	// windowQuiet is how long a pool must have been undisturbed before its
	// window is reopened, so that a backend that fails all the time doesn't
	// cost a new window for each session.
	windowQuiet = 50 * time.Millisecond
)

// window is the run of coming picks that the board hands out. While it is
// open, the weights of its backends are those of its beginning; closing it
// moves them on by what was taken. Backends that are ejected or failing have
// no part in it; until is when the first of the ejected may be probed.
type window struct {
	board     Board // nil: no windows
	open      bool
	until     time.Time // zero: no bound
	quiet     time.Time // not reopened before this
	picks     []*Backend
	totals    []int64 // sum of the effective weights at each pick
	ids       []uint32
	standings []standing // who has part in it
}

// fromWindow takes the next pick of the open window, or opens one if that is
// due. nil: the pick is to be made from the state, and the window is closed.
func (p *Pool) fromWindow(retry bool, now time.Time) *Backend {
	if p.win.board == nil {
		return nil
	}
	if retry {
		// A retry leaves out what its session has tried, and so moves the
		// order in a way that no window foresaw.
		p.disturb(now)
		return nil
	}
	p.reopen(now)
	for range 2 {
		if !p.win.open {
			return nil
		}
		if i, ok := p.win.board.Take(); ok && i < len(p.win.picks) {
			return p.win.picks[i]
		}
		p.closeWindow()
		p.openWindow(now)
	}
	// The other side emptied a whole window since it was opened.
	p.closeWindow()
	return nil
}

// disturb closes the window because of something that changes the order.
func (p *Pool) disturb(now time.Time) {
	if p.win.board == nil {
		return
	}
	p.closeWindow()
	p.win.quiet = now.Add(windowQuiet)
}

// reopen opens the window if the pool has been quiet and is steady. One that is
// out of its time it closes first; the board's other side has left that one
// alone since.
func (p *Pool) reopen(now time.Time) {
	if p.win.open && !p.win.until.IsZero() && !now.Before(p.win.until) {
		p.closeWindow()
	}
	if p.win.board == nil || p.win.open || now.Before(p.win.quiet) {
		return
	}
	p.primary.endSlow(now)
	if !p.openWindow(now) {
		p.win.quiet = now.Add(windowQuiet) // don't look at every pick
	}
}

// steady finds the backends that have part in a window: those of whose weights
// alone the coming picks follow, until the second in which one of the ejected
// may be probed. None: the picks don't follow from weights.
func (p *Pool) steady(sec int64) (standings []standing, until int64) {
	if p.retired || p.opts.Balance != config.RoundRobin || len(p.primary.slow) > 0 {
		return nil, 0
	}
	standings, until = p.win.standings[:0], math.MaxInt64
	for _, b := range p.primary.all {
		switch {
		case !b.up || b.failing:
		case b.ejected(sec):
			until = min(until, b.checked+b.failTimeout+1)
		case b.struck() || b.spec.MaxConns > 0:
			return nil, 0
		default:
			standings = append(standings, standing{b.currentWeight, b.effectiveWeight, b.weight, b})
		}
	}
	return standings, until
}

func (p *Pool) openWindow(now time.Time) bool {
	w := &p.win
	if w.board == nil || w.open {
		return false
	}
	standings, until := p.steady(p.seconds(now))
	if len(standings) == 0 {
		return false
	}
	w.standings, w.until = standings, p.begins(until)
	w.compute()
	w.open = true
	w.board.Open(w.ids, w.until)
	return true
}

// compute steps copies of the backends' states through the window.
func (w *window) compute() {
	w.picks, w.totals, w.ids = w.picks[:0], w.totals[:0], w.ids[:0]
	add := func(i int, total int64) {
		b := w.standings[i].b
		w.picks, w.totals, w.ids = append(w.picks, b), append(w.totals, total), append(w.ids, b.ID)
	}
	full := !slices.ContainsFunc(w.standings, func(s standing) bool { return s.effective < s.weight })
	// Backends that have failed climb back step by step.
	for left := windowLength(len(w.standings)); !full && left > 0; left-- {
		var i int
		var total int64
		i, total, full = stepAll(w.standings)
		add(i, total)
	}
	if !full {
		return
	}
	q := newSequence(w.standings)
	for most := windowLength(len(q.groups)); len(w.picks) < most; {
		add(q.next(), q.total)
	}
}

// windowLength is how many picks of so many steps a window holds.
func windowLength(steps int) int { return min(windowPicks, max(1, windowWork/steps)) }

// closeWindow closes the window and moves the weights on by exactly the picks
// that were taken from it.
func (p *Pool) closeWindow() {
	w := &p.win
	if !w.open {
		return
	}
	w.open = false
	taken := min(max(w.board.Close(), 0), len(w.picks))
	if p.single || taken == 0 {
		return // nginx leaves the weights of a lone backend alone
	}
	for i := range w.standings {
		w.standings[i].b.climbTimes(int64(taken))
	}
	for i, b := range w.picks[:taken] {
		b.currentWeight -= w.totals[i]
	}
}

// climbTimes is climb, n times over.
func (b *Backend) climbTimes(n int64) {
	rising := min(n, b.weight-b.effectiveWeight)
	b.currentWeight += rising*b.effectiveWeight + rising*(rising-1)/2 + (n-rising)*b.weight
	b.effectiveWeight += rising
}
