// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"slices"
	"time"

	"sluice/config"
)

const (
	// windowPicks is how many picks a window holds.
	windowPicks = 1024
	// windowWork bounds picks times backends while some of them still climb back
	// after failures, so that a pool with very many doesn't hold its lock for
	// long; its windows are short until they are back.
	windowWork = 4 << 20
	// windowQuiet is how long a pool must have been undisturbed before its
	// window is reopened, so that a backend that fails all the time doesn't
	// cost a new window for each session.
	windowQuiet = 50 * time.Millisecond
)

// window is the run of coming picks that the board hands out. While it is
// open, the backends' weights are those of its beginning; closing it moves
// them on by what was taken.
type window struct {
	board  Board // nil: no windows
	open   bool
	quiet  time.Time // not reopened before this
	picks  []*Backend
	totals []int64 // sum of the effective weights at each pick
	ids    []uint32
	calc   []slot // scratch
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
		p.openWindow()
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

// reopen opens the window if the pool has been quiet and is steady.
func (p *Pool) reopen(now time.Time) {
	if p.win.board == nil || p.win.open || now.Before(p.win.quiet) {
		return
	}
	if !p.openWindow() {
		p.win.quiet = now.Add(windowQuiet) // don't look at every pick
	}
}

// steady says that the coming picks follow from the weights alone.
func (p *Pool) steady() bool {
	if p.opts.Balance != config.RoundRobin {
		return false
	}
	some := false
	for _, b := range p.primary.all {
		if !b.up {
			continue
		}
		if b.failing || b.struck() || b.spec.MaxConns > 0 {
			return false
		}
		some = true
	}
	return some
}

func (p *Pool) openWindow() bool {
	w := &p.win
	if w.board == nil || w.open || !p.steady() {
		return false
	}
	w.calc = w.calc[:0]
	for _, b := range p.primary.all {
		if b.up {
			w.calc = append(w.calc, slot{b.currentWeight, b.effectiveWeight, b.weight, b})
		}
	}
	w.compute()
	w.open = true
	w.board.Open(w.ids)
	return true
}

// compute steps copies of the backends' states through the window.
func (w *window) compute() {
	w.picks, w.totals, w.ids = w.picks[:0], w.totals[:0], w.ids[:0]
	add := func(i int, total int64) {
		b := w.calc[i].b
		w.picks, w.totals, w.ids = append(w.picks, b), append(w.totals, total), append(w.ids, b.ID)
	}
	full := !slices.ContainsFunc(w.calc, func(s slot) bool { return s.effective < s.weight })
	// Backends that have failed climb back step by step.
	for left := min(windowPicks, max(1, windowWork/len(w.calc))); !full && left > 0; left-- {
		var i int
		var total int64
		i, total, full = stepSlots(w.calc)
		add(i, total)
	}
	if !full {
		return
	}
	for q := newSequence(w.calc); len(w.picks) < windowPicks; {
		add(q.next(), q.total)
	}
}

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
	for _, b := range p.primary.all {
		if b.up {
			b.climbTimes(int64(taken))
		}
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
