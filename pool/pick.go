// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"slices"
	"time"

	"sluice/config"
)

// Pick gives the session its next backend, counts it active there and
// remembers it as tried. nil: there is nobody to try, and NoLive has been told.
// Each backend that it returns is given back by exactly one Failed or Release.
func (p *Pool) Pick(s *State, now time.Time) *Backend {
	p.mu.Lock()
	b := p.pick(s, now)
	p.mu.Unlock()
	if b == nil {
		p.tell([]Event{{Kind: NoLive, Pool: p.name}})
	}
	return b
}

// Redeem is Pick with a proposal: id was handed out by the dispatch program,
// so the order has counted it. It is used if the backend is eligible now; else
// the next pick is.
func (p *Pool) Redeem(s *State, id uint32, now time.Time) *Backend {
	p.mu.Lock()
	b := p.redeem(s, id, now)
	p.mu.Unlock()
	if b == nil {
		p.tell([]Event{{Kind: NoLive, Pool: p.name}})
	}
	return b
}

// PickOrFull is Redeem (Pick where id is 0) for a caller that may know of
// sessions which have ended, but not been released yet. full: nobody was
// picked, and somebody would have been but for max_conns. That is no answer
// yet: nothing has changed and nothing is told. The caller sees to it that
// every end that has arrived by now, wherever it waits, is released, and asks
// again. left is how many sessions had left the pool's backends by the time of
// the look: where that hasn't changed from one look in vain to the next, those
// who fill the backends are the same, and Pick's answer stands. With full false
// the answer is Redeem's, NoLive included.
func (p *Pool) PickOrFull(s *State, id uint32, now time.Time) (b *Backend, full bool, left uint64) {
	p.mu.Lock()
	b = p.redeem(s, id, now)
	if b == nil {
		sec := p.seconds(now)
		full = p.onlyFull(&p.primary, sec) || p.onlyFull(&p.backup, sec)
	}
	left = p.left
	p.mu.Unlock()
	if b == nil && !full {
		p.tell([]Event{{Kind: NoLive, Pool: p.name}})
	}
	return b, full, left
}

// onlyFull says that max_conns alone keeps the session that has just picked
// from somebody in l.
func (p *Pool) onlyFull(l *list, sec int64) bool {
	return slices.ContainsFunc(l.all, func(b *Backend) bool {
		return b.full() && b.wanted() && (p.opts.TryEjected || b.healthy(sec))
	})
}

func (p *Pool) redeem(s *State, id uint32, now time.Time) *Backend {
	if proposed := p.byID[id]; proposed != nil {
		sec := p.seconds(now)
		p.markTried(s)
		if proposed.eligible(sec) {
			return p.use(s, proposed, sec)
		}
	}
	return p.pick(s, now)
}

// pick tries the lists in the order of last resorts.
func (p *Pool) pick(s *State, now time.Time) *Backend {
	sec := p.seconds(now)
	retry := p.markTried(s)
	if b := p.fromWindow(retry, now); b != nil {
		return p.use(s, b, sec)
	}
	b := p.next(&p.primary, s, sec, now)
	if b == nil {
		b = p.next(&p.backup, s, sec, now)
	}
	if b == nil && p.opts.TryEjected {
		b = lastResort(&p.primary)
		if b == nil {
			b = lastResort(&p.backup)
		}
		if b != nil {
			b.trial = b.struck()
		}
	}
	if b == nil {
		return nil
	}
	return p.use(s, b, sec)
}

// use gives b to the session. From the end of fail_timeout on, the first pick
// moves checked, so that only this one session probes an ejected backend.
func (p *Pool) use(s *State, b *Backend, sec int64) *Backend {
	if sec-b.checked > b.failTimeout {
		b.checked = sec
	}
	if b.conns++; b.conns == 1 && b.removed {
		p.aside = append(p.aside, b) // the pool has been retired
	}
	s.add(b)
	return b
}

func (p *Pool) next(l *list, s *State, sec int64, now time.Time) *Backend {
	switch {
	case len(l.all) == 0:
		return nil
	case p.single:
		// nginx leaves the weights of a lone backend alone.
		if b := l.all[0]; b.eligible(sec) {
			return b
		}
		return nil
	}
	l.endSlow(now)
	if p.opts.Balance == config.Hash {
		return l.hashed(s.Key, sec, now)
	}
	var b *Backend
	if len(l.slow) > 0 {
		b = l.earn(sec, now)
	}
	if b == nil {
		b = p.byRule(l, sec)
	}
	if b != nil && b.slow.on {
		b.slow.earned--
	}
	return b
}

func (p *Pool) byRule(l *list, sec int64) *Backend {
	switch p.opts.Balance {
	case config.LeastConn:
		return leastConn(l, sec)
	case config.RandomTwo:
		return p.randomTwo(l, sec)
	}
	return roundRobin(l, sec)
}

// lastResort is round robin, by weight, among those that are not eligible only
// because they are ejected or failing. It has weights of its own: failures
// bring the effective weights to 0, and by those the first in the file would
// be tried first by every session.
func lastResort(l *list) *Backend {
	var best *Backend
	var total int64
	for _, b := range l.all {
		if !b.possible() {
			continue
		}
		b.lastWeight += b.weight
		total += b.weight
		if best == nil || b.lastWeight > best.lastWeight {
			best = b
		}
	}
	if best != nil {
		best.lastWeight -= total
	}
	return best
}
