// SPDX-License-Identifier: Apache-2.0

// Package srcports hands out source ports toward backends: ports that no socket of
// the host has, because connections that nobody has a socket for use them. The same
// port serves many backends at once, each once.
package srcports

import (
	"net/netip"
	"sync"
	"time"
)

// Ports hands out ports of some ranges, block by block as they are needed. Several
// of them, also in other processes, share a host: each claims blocks of 256 ports.
// Its methods may be called at once from several goroutines, except Close.
type Ports struct {
	mu       sync.Mutex
	ranges   []Range
	blocks   []block
	inRange  int  // ranges[inRange] is the one of which blocks are claimed
	next     int  // the port there that the next block begins with
	spent    bool // there is no further block
	backends map[netip.AddrPort]*uses
	now      func() time.Time
}

// New prepares to hand out the ports of these ranges; now is the clock. Close gives
// all of them back.
func New(ranges []Range, now func() time.Time) *Ports {
	p := &Ports{ranges: ranges, backends: map[netip.AddrPort]*uses{}, now: now}
	if len(ranges) == 0 {
		p.spent = true
	} else {
		p.next = int(ranges[0].First)
	}
	return p
}

// Close gives the claimed ports back. Connections from them should be over.
func (p *Ports) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.blocks {
		p.blocks[i].release()
	}
	p.blocks, p.spent = nil, true
	return nil
}

// Take gives a port to reach this backend from, the one whose last use is longest
// ago; ok false: all are in use, or rest.
func (p *Ports) Take(backend netip.AddrPort) (port uint16, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	u := p.backends[backend]
	if u == nil {
		u = &uses{last: -1}
		p.backends[backend] = u
	}
	u.wake(p.now())
	// A block more is claimed while half of them are in use, so that a port has its
	// turn again as late as can be and few blocks are held.
	if total := p.places(); u.last+1 >= total && u.count >= total/2 {
		p.claimNext()
	}
	for {
		if place := u.take(p.places()); place >= 0 {
			return p.at(place), true
		}
		if !p.claimNext() {
			return 0, false
		}
	}
}

// Adopt takes this very port toward a backend: a connection that is there already uses
// it. Its block is claimed, before any is for Take; false: it is none of the ranges',
// somebody else has it, or it is taken.
func (p *Ports) Adopt(backend netip.AddrPort, port uint16) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	place := p.placeOf(port)
	if place < 0 && p.claimOf(port) {
		place = p.placeOf(port)
	}
	if place < 0 {
		return false
	}
	u := p.backends[backend]
	if u == nil {
		u = &uses{last: -1}
		p.backends[backend] = u
	}
	return u.occupy(place)
}

// claimOf claims the block that has this port. claimNext finds it taken when its turn
// comes.
func (p *Ports) claimOf(port uint16) bool {
	for _, r := range p.ranges {
		if port < r.First || port > r.Last {
			continue
		}
		first := max(int(r.First), int(port)/blockSize*blockSize)
		b, ok := claim(uint16(first), min((first/blockSize+1)*blockSize, int(r.Last)+1)-first)
		if ok {
			p.blocks = append(p.blocks, b)
		}
		return ok
	}
	return false
}

// Give gives a port back. It isn't taken again toward this backend for rest.
func (p *Ports) Give(backend netip.AddrPort, port uint16, rest time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	u, place := p.backends[backend], p.placeOf(port)
	if u == nil || place < 0 || !u.give(place, rest, p.now()) {
		return
	}
	p.forget(backend, u)
}

// forget drops what is known of a backend that nothing is in use toward. The order
// of its ports begins anew then.
func (p *Ports) forget(backend netip.AddrPort, u *uses) {
	u.wake(p.now())
	if u.count == 0 && len(p.backends) > mostIdle {
		delete(p.backends, backend)
	}
}

// mostIdle is how many backends are remembered though nothing is in use toward them.
const mostIdle = 1024

// places is how many ports there are to hand out, by the blocks claimed so far.
func (p *Ports) places() int {
	n := 0
	for i := range p.blocks {
		n += p.blocks[i].ports - 1
	}
	return n
}

// at is the port of a place.
func (p *Ports) at(place int) uint16 {
	for i := range p.blocks {
		b := &p.blocks[i]
		if place < b.ports-1 {
			return b.first + 1 + uint16(place)
		}
		place -= b.ports - 1
	}
	return 0
}

// placeOf is the place of a port, -1 for one that isn't ours.
func (p *Ports) placeOf(port uint16) int {
	place := 0
	for i := range p.blocks {
		b := &p.blocks[i]
		if port > b.first && int(port) < int(b.first)+b.ports {
			return place + int(port-b.first) - 1
		}
		place += b.ports - 1
	}
	return -1
}

// claimNext claims one more block; false: there is none.
func (p *Ports) claimNext() bool {
	for !p.spent {
		r := p.ranges[p.inRange]
		if p.next+1 > int(r.Last) { // the claim alone is no use
			p.inRange++
			if p.spent = p.inRange == len(p.ranges); !p.spent {
				p.next = int(p.ranges[p.inRange].First)
			}
			continue
		}
		first := p.next
		p.next = min((first/blockSize+1)*blockSize, int(r.Last)+1)
		if b, ok := claim(uint16(first), p.next-first); ok {
			p.blocks = append(p.blocks, b)
			return true
		}
	}
	return false
}
