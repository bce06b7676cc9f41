// SPDX-License-Identifier: Apache-2.0

package grpc

import (
	"container/list"
	"sync"
	"sync/atomic"
	"time"

	"sluice/config"
	"sluice/pool"
	"sluice/session"
	"sluice/stats"
)

// group are the connections to backends that a listener's calls share.
type group struct {
	eng      *Engine
	calls    *stats.Calls
	mu       sync.Mutex
	peers    map[*pool.Backend]*peers
	settings *session.Settings // of the last call; under eng.mu
}

// at are the connections to b.
func (g *group) at(b *pool.Backend) *peers {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.peers[b]
	if p == nil {
		p = &peers{g: g, backend: b, most: firstMost}
		g.peers[b] = p
	}
	return p
}

// firstMost is how many streams a connection is taken to have before its backend
// has said so.
const firstMost = 100

// mostDials bounds the connections to one backend that are made at a time.
const mostDials = 16

// peers are the connections to one backend, and the calls that wait for a stream
// of one.
type peers struct {
	g       *group
	backend *pool.Backend

	mu      sync.Mutex
	links   []*backend // that take calls, or did
	dialing int
	waiting list.List // of waiter
	waits   atomic.Int32
	most    uint32 // streams that a connection has, as was last said
	used    int64  // when a call was last opened
}

// waiter is a call, or one leg of it, that waits for a stream.
type waiter struct {
	c    *call
	turn int // of the call, or of the leg
	leg  int // < 0: none
}

// open opens the call on the connection with the fewest streams, if one has a
// stream to spare. c.mu is held.
func (p *peers) open(c *call, first bool, w *work) *stream {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !first && p.waiting.Len() > 0 {
		return nil // who came before is first
	}
	return p.openLocked(c, w)
}

func (p *peers) openLocked(c *call, w *work) *stream {
	best, load := (*backend)(nil), 0
	for _, b := range p.links {
		if n, ok := b.load(); ok && (best == nil || n < load) {
			best, load = b, n
		}
	}
	if best == nil {
		return nil
	}
	p.used = c.client.eng.clock.Now()
	if conf := c.conf(); len(p.links)+p.dialing < conf.Connections {
		p.dial(c.Settings.Config)
	}
	return best.open(c, w)
}

// await is open for a call that waits if there is no stream: c.settle, or what
// comes of it, takes it off the queue.
func (p *peers) await(c *call, first bool, w *work) *stream {
	p.mu.Lock()
	defer p.mu.Unlock()
	if first || p.waiting.Len() == 0 {
		if up := p.openLocked(c, w); up != nil {
			return up
		}
	}
	c.peers = p
	c.waits = p.enqueue(waiter{c, c.turn, -1}, first)
	p.dialMore(c.Settings.Config)
	return nil
}

// awaitLeg is await for a leg: what was enqueued in an earlier turn of it means
// nothing any more.
func (p *peers) awaitLeg(c *call, wt waiter, first bool, w *work) *stream {
	p.mu.Lock()
	defer p.mu.Unlock()
	if first || p.waiting.Len() == 0 {
		if up := p.openLocked(c, w); up != nil {
			return up
		}
	}
	p.enqueue(wt, first)
	p.dialMore(c.Settings.Config)
	return nil
}

// enqueue has wt wait. Under p.mu.
func (p *peers) enqueue(wt waiter, first bool) *list.Element {
	p.waits.Add(1)
	if first {
		return p.waiting.PushFront(wt)
	}
	return p.waiting.PushBack(wt)
}

// dialMore makes as many connections as those who wait need.
func (p *peers) dialMore(conf *config.Listener) {
	most := int(max(min(p.most, noLimit), 1))
	for n := (p.waiting.Len() + most - 1) / most; p.dialing < min(n, mostDials) && p.g.eng.ctx.Err() == nil; {
		p.dial(conf)
	}
}

// dial makes a connection, on a goroutine of its own. Under p.mu.
func (p *peers) dial(conf *config.Listener) {
	if p.g.eng.ctx.Err() != nil {
		return
	}
	p.dialing++
	p.g.eng.running.Add(1)
	go func() {
		defer p.g.eng.running.Done()
		p.connect(conf)
	}()
}

// leave takes a call off the queue.
func (p *peers) leave(c *call) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.waits != nil {
		p.waiting.Remove(c.waits)
		p.waits.Add(-1)
		c.waits = nil
	}
}

// wake has those who wait try again, as many as there are streams for.
func (p *peers) wake(w *work) {
	for _, wt := range p.pop(false) {
		wt.c.mu.Lock()
		switch {
		case wt.leg >= 0:
			wt.c.spread.woken(wt.leg, wt.turn, w)
		case wt.c.turn == wt.turn && !wt.c.over && !wt.c.ending:
			wt.c.attempt(true, w)
		}
		wt.c.mu.Unlock()
	}
}

// fail tells those who wait that no connection can be had.
func (p *peers) fail(f session.Fault, why string, w *work) {
	for _, wt := range p.pop(true) {
		wt.c.mu.Lock()
		switch {
		case wt.leg >= 0:
			wt.c.spread.unreached(wt.leg, wt.turn, f, why, w)
		case wt.c.turn == wt.turn && !wt.c.over && !wt.c.ending:
			wt.c.failed(f, why, w)
		}
		wt.c.mu.Unlock()
	}
}

// pop takes waiters off the queue: all, or as many as there are streams for.
func (p *peers) pop(all bool) (out []waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.waiting.Len()
	if !all && n > 0 {
		room := 0
		for _, b := range p.links {
			room += b.room()
		}
		n = min(n, room)
	}
	p.waits.Add(int32(-n))
	for range n {
		e := p.waiting.Front()
		wt := p.waiting.Remove(e).(waiter)
		if wt.leg < 0 {
			wt.c.waits = nil
		}
		out = append(out, wt)
	}
	return out
}

// remove forgets a connection that has ended.
func (p *peers) remove(b *backend) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, other := range p.links {
		if other == b {
			p.links = append(p.links[:i:i], p.links[i+1:]...)
			return
		}
	}
}

// sweep ends connections that nobody needs. alone: no client has been there for
// a while.
func (p *peers) sweep(now int64, want int, idle time.Duration, alone bool, w *work) {
	gone := p.backend.Gone()
	p.mu.Lock()
	links := append([]*backend(nil), p.links...)
	waiting, used := p.waiting.Len(), p.used
	p.mu.Unlock()
	for i, b := range links {
		since, busy := b.idleSince()
		if busy || waiting > 0 {
			continue
		}
		rest := time.Duration(now - max(since, used))
		if alone || gone || idle > 0 && rest > idle || i >= want && time.Duration(now-since) > spareTime {
			b.quit(w)
		}
	}
}

// conf is the listener's, as of its last call.
func (g *group) conf() *config.Listener {
	g.eng.mu.Lock()
	defer g.eng.mu.Unlock()
	return g.settings.Config
}
