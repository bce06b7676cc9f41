// SPDX-License-Identifier: Apache-2.0

package grpc

import (
	"time"

	"sluice/stats"
)

// startSweep has connections looked after from now on, as long as there are any.
// Under e.mu.
func (e *Engine) startSweep() {
	if e.sweeping {
		return
	}
	e.sweeping = true
	e.running.Add(1)
	go func() {
		defer e.running.Done()
		for timer := time.NewTimer(sweepMost); ; {
			select {
			case <-timer.C:
			case <-e.ctx.Done():
				timer.Stop()
				return
			}
			next, more := e.sweep(true)
			if !more {
				return
			}
			timer.Reset(next)
		}
	}()
}

// sweep sees to what is due and says when to look again; more: there is anything
// to look at. regular: it is the one goroutine's, which ends if there isn't.
func (e *Engine) sweep(regular bool) (next time.Duration, more bool) {
	now, w := e.clock.Now(), &work{}
	at := now + int64(sweepMost)
	for _, c := range e.list() {
		if due := c.sweep(now, w); due != 0 {
			at = min(at, due)
		}
	}
	w.flush()
	e.mu.Lock()
	seen := map[*peers]bool{}
	for b := range e.backends {
		seen[b.p] = true
	}
	alone := len(e.clients) == 0 && now-e.lone >= int64(loneTime)
	if len(e.clients) == 0 {
		at = min(at, e.lone+int64(loneTime))
	}
	groups := make(map[*stats.Listener]*group, len(e.groups))
	for k, g := range e.groups {
		groups[k] = g
	}
	e.mu.Unlock()
	for p := range seen {
		p.g.sweep(p, now, alone, w)
	}
	for _, g := range groups {
		g.prune(seen)
	}
	w.flush()
	e.mu.Lock()
	defer e.mu.Unlock()
	if regular && len(e.clients)+len(e.backends) == 0 && alone {
		clear(e.groups) // no call can be on its way to one
		e.sweeping = false
		return 0, false
	}
	return min(max(time.Duration(at-now), sweepLeast), sweepMost), true
}

func (g *group) sweep(p *peers, now int64, alone bool, w *work) {
	conf := g.conf()
	want := 1
	if conf.GRPC != nil {
		want = conf.GRPC.Connections
	}
	p.sweep(now, want, conf.IdleTimeout, alone, w)
}

// prune forgets the backends that no call is to come to, without connections.
func (g *group) prune(connected map[*peers]bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for b, p := range g.peers {
		if !connected[p] && p.waits.Load() == 0 && b.Gone() {
			delete(g.peers, b)
		}
	}
}
