// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"time"

	"sluice/config"
)

const (
	// windowPicks is how many picks a window holds.
	windowPicks = 1024
	// windowWork bounds picks times backends, so that a pool with very many
	// backends doesn't hold its lock for long; such a pool has short windows.
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

// slot is the copy of one backend's state on which the window is computed.
type slot struct {
	current, effective, weight int64
	b                          *Backend
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
	w.picks, w.totals, w.ids = w.picks[:0], w.totals[:0], w.ids[:0]
	n := min(windowPicks, max(1, windowWork/len(w.calc)))
	for range n {
		i, total := stepSlots(w.calc)
		w.picks = append(w.picks, w.calc[i].b)
		w.totals = append(w.totals, total)
		w.ids = append(w.ids, w.calc[i].b.ID)
	}
	w.open = true
	w.board.Open(w.ids)
	return true
}

// stepSlots is one pick of nginx's round robin, everybody being eligible.
func stepSlots(slots []slot) (best int, total int64) {
	for i := range slots {
		s := &slots[i]
		s.current += s.effective
		total += s.effective
		if s.effective < s.weight {
			s.effective++
		}
		if s.current > slots[best].current {
			best = i
		}
	}
	slots[best].current -= total
	return best, total
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
