// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"slices"
	"time"

	"sluice/config"
)

// Prepared is a state that a pool can be put into by Commit.
type Prepared struct {
	opts            Options
	specs           []Spec
	primary, backup *maglev // nil unless balance is hash
}

// Prepare makes ready what the file says of the pool, and changes nothing. It
// is the slow part of an edit, tens of milliseconds for the tables of a
// thousand backends with balance: hash, and holds no lock meanwhile.
func (p *Pool) Prepare(o Options, specs []Spec) *Prepared {
	if o.Balance == "" {
		o.Balance = config.RoundRobin
	}
	n := &Prepared{opts: o, specs: unique(specs)}
	if o.Balance == config.Hash {
		p.mu.Lock()
		primary, backup := p.primary.table, p.backup.table
		p.mu.Unlock()
		n.primary, n.backup = p.tables(n.specs, primary, backup)
	}
	return n
}

// Apply is Prepare and Commit in one.
func (p *Pool) Apply(o Options, specs []Spec, now time.Time) (removed []*Backend) {
	return p.Commit(p.Prepare(o, specs), now)
}

// Commit makes the pool what the file says. A backend is identified by its
// address: one that stays keeps its place in the order, its counters and its
// ejection; a newcomer starts at 0; a removed one with live sessions is kept
// aside, and is the same backend if it is put back meanwhile. An address given
// twice counts once, with the first's options. It returns the backends that
// this call removed. A pool that is that already is left alone.
func (p *Pool) Commit(n *Prepared, now time.Time) (removed []*Backend) {
	p.mu.Lock()
	if p.hasStart && !p.retired && p.opts == n.opts && slices.Equal(p.specs, n.specs) {
		p.mu.Unlock()
		return nil
	}
	p.seconds(now) // the clock starts with the first edit
	p.closeWindow()
	known := make(map[Addr]*Backend, len(p.byID)+len(p.aside))
	for _, b := range p.byID {
		known[b.Addr] = b
	}
	for _, b := range p.aside {
		known[b.Addr] = b
	}
	before := append(append([]*Backend(nil), p.primary.all...), p.backup.all...)
	p.opts, p.specs, p.retired = n.opts, n.specs, false
	gone := make([]*Backend, 0, len(before))
	p.fill(n.specs, known)
	for _, b := range before {
		if p.byID[b.ID] == nil {
			gone = append(gone, b)
		}
	}
	removed = p.remove(gone)
	p.primary.setTable(n.primary)
	p.backup.setTable(n.backup)
	events := p.retold()
	p.arrivals(now)
	p.openWindow(now)
	p.mu.Unlock()
	p.tell(events)
	return removed
}

// Retire takes the whole pool out of the file: its backends are removed from
// now on, and shown only while they have sessions. But it keeps them: who has
// been accepted by a listener that goes with its pool, or waits in its queue,
// is served as before. Commit brings the pool back. It returns the backends that
// this call removed.
func (p *Pool) Retire(now time.Time) (removed []*Backend) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closeWindow()
	p.retired = true
	removed = p.remove(append(append([]*Backend(nil), p.primary.all...), p.backup.all...))
	p.arrivals(now)
	return removed
}

// remove marks these as removed and returns those that weren't yet.
func (p *Pool) remove(gone []*Backend) (removed []*Backend) {
	for _, b := range gone {
		if !b.removed {
			b.removed, b.wasLive, b.slow = true, false, slowStart{}
			removed = append(removed, b)
		}
	}
	p.setAside(removed)
	return removed
}

// Removed lists the backends that are not in the file any more and still have
// sessions.
func (p *Pool) Removed() (list []*Backend) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, some := range [][]*Backend{p.aside, p.primary.all, p.backup.all} {
		for _, b := range some {
			if b.removed && b.conns > 0 && !slices.Contains(list, b) {
				list = append(list, b)
			}
		}
	}
	return list
}

func unique(specs []Spec) []Spec {
	seen := make(map[Addr]bool, len(specs))
	out := make([]Spec, 0, len(specs))
	for _, s := range specs {
		if !seen[s.Addr] {
			seen[s.Addr] = true
			out = append(out, s)
		}
	}
	return out
}

// fill sets the lists anew.
func (p *Pool) fill(specs []Spec, known map[Addr]*Backend) {
	p.primary, p.backup = list{}, list{}
	p.byID = make(map[uint32]*Backend, len(specs))
	p.tries = 0
	for _, s := range specs {
		b := known[s.Addr]
		if b == nil {
			b = &Backend{ID: ids.next(), Addr: s.Addr, pool: p}
		}
		b.configure(s)
		p.byID[b.ID] = b
		if !b.down() {
			p.tries++
		}
		if s.Backup {
			p.backup.all = append(p.backup.all, b)
		} else {
			p.primary.all = append(p.primary.all, b)
		}
	}
	p.single = len(p.primary.all) == 1 && len(p.backup.all) == 0
	p.primary.setRanges()
	p.backup.setRanges()
}

// setAside keeps, of those removed before and now, the ones that have sessions
// and haven't been put back.
func (p *Pool) setAside(removed []*Backend) {
	var aside []*Backend
	for _, b := range append(append([]*Backend(nil), p.aside...), removed...) {
		if b.removed && b.conns > 0 {
			aside = append(aside, b)
		}
	}
	p.aside = aside
}

// retold tells of backends that new options have let in or put out, such as one
// that is no longer, or is again, the only one.
func (p *Pool) retold() (events []Event) {
	for _, l := range []*list{&p.primary, &p.backup} {
		for _, b := range l.all {
			if b.out == b.struck() {
				continue
			}
			b.out = !b.out
			if b.out {
				events = append(events, b.failure(Ejected))
			} else {
				events = append(events, Event{Kind: Back, Pool: p.name, Backend: b.Addr.String()})
			}
		}
	}
	return events
}
