// SPDX-License-Identifier: Apache-2.0

package pool

import "time"

// Connected says that an attempt succeeded after took. The session stays
// active. As in nginx it clears the failures only if fail_timeout had passed
// since the last one when a session was picked; a success of a last resort
// clears them at once.
func (p *Pool) Connected(b *Backend, took time.Duration, now time.Time) {
	p.mu.Lock()
	b.total++
	b.observe(took)
	var events []Event
	if b.accessed < b.checked || b.trial {
		if b.struck() && b.ordered() {
			p.closeWindow() // it is in the order again
		}
		b.fails = 0
		b.trial = false
		if b.out {
			b.out = false
			events = append(events, Event{Kind: Back, Pool: p.name, Backend: b.Addr.String()})
			p.arrivals(now)
		}
	}
	p.mu.Unlock()
	p.tell(events)
}

// Failed says that an attempt was refused, found the backend unreachable or
// timed out, and gives the backend back. why is the failure in words, for the
// events that it causes now or later.
func (p *Pool) Failed(b *Backend, why string, now time.Time) {
	p.mu.Lock()
	b.failed++
	b.why = why
	var events []Event
	if !p.single || b.removed {
		if b.strike(now) {
			events = append(events, b.failure(Ejected))
		}
	}
	if p.single || b.spec.MaxFails == 0 {
		events = append(events, b.failure(Failure))
	}
	p.giveBack(b)
	p.mu.Unlock()
	p.tell(events)
}

func (b *Backend) failure(k EventKind) Event {
	return Event{Kind: k, Pool: b.pool.name, Backend: b.Addr.String(), Why: b.why}
}

// strike is nginx's accounting of a failure. It says whether that has just
// ejected the backend.
func (b *Backend) strike(now time.Time) (ejected bool) {
	p := b.pool
	sec := p.seconds(now)
	if b.spec.MaxFails > 0 && b.ordered() {
		p.disturb(now)
	}
	b.fails++
	b.accessed, b.checked = sec, sec
	if b.spec.MaxFails > 0 {
		b.effectiveWeight = max(0, b.effectiveWeight-b.weight/int64(b.spec.MaxFails))
	}
	if b.out || b.removed || !b.struck() {
		return false
	}
	b.out = true
	p.arrivals(now)
	return true
}

// Release says that a session ended, or that an attempt was given up without a
// judgement on the backend, and gives the backend back.
func (p *Pool) Release(b *Backend, _ time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.giveBack(b)
}

func (p *Pool) giveBack(b *Backend) {
	p.left++
	b.conns--
	if b.removed && b.conns <= 0 {
		p.forget(b)
	}
}

// forget drops a removed backend whose last session has ended.
func (p *Pool) forget(b *Backend) {
	for i, other := range p.aside {
		if other == b {
			p.aside = append(p.aside[:i:i], p.aside[i+1:]...)
			return
		}
	}
}

// arrivals looks in both lists for who has come or gone.
func (p *Pool) arrivals(now time.Time) {
	p.primary.arrivals(now)
	p.backup.arrivals(now)
}

// SetFailing is the verdict of the active checks on a backend.
func (p *Pool) SetFailing(b *Backend, failing bool, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b.failing == failing {
		return
	}
	if b.ordered() {
		p.closeWindow() // Tick or the next pick reopens it if that can be
	}
	b.failing = failing
	p.arrivals(now)
}

// ordered says that the primaries' order depends on the backend.
func (b *Backend) ordered() bool { return b.up && !b.removed && !b.spec.Backup }
