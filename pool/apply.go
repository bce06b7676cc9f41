// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"time"

	"sluice/config"
)

// Apply makes the pool what the file says. A backend is identified by its
// address: one that stays keeps its place in the order, its counters and its
// ejection; a newcomer starts at 0; a removed one with live sessions is kept
// aside, and is the same backend if it is put back meanwhile. An address given
// twice counts once, with the first's options. It returns the backends that
// this call removed.
func (p *Pool) Apply(o Options, specs []Spec, now time.Time) (removed []*Backend) {
	p.applying.Lock()
	defer p.applying.Unlock()
	if o.Balance == "" {
		o.Balance = config.RoundRobin
	}
	specs = unique(specs)
	primary, backup := p.tables.get(o.Balance, specs) // the slow part, outside the lock

	p.mu.Lock()
	p.seconds(now) // the clock starts with the first Apply
	p.closeWindow()
	known := make(map[Addr]*Backend, len(p.byID)+len(p.aside))
	for _, b := range p.byID {
		known[b.Addr] = b
	}
	for _, b := range p.aside {
		known[b.Addr] = b
	}
	before := append(append([]*Backend(nil), p.primary.all...), p.backup.all...)
	p.opts = o
	p.fill(specs, known)
	for _, b := range before {
		if p.byID[b.ID] == nil {
			b.removed = true
			removed = append(removed, b)
		}
	}
	p.setAside(removed)
	p.primary.setTable(primary)
	p.backup.setTable(backup)
	events := p.retold()
	p.openWindow()
	p.mu.Unlock()
	p.tell(events)
	return removed
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
			kind := Back
			if b.out {
				kind = Ejected
			}
			events = append(events, Event{kind, p.name, b.Addr.String()})
		}
	}
	return events
}
