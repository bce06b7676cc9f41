// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"sync/atomic"
	"time"

	"sluice/config"
)

// Backend is one server address in a pool. It stays the same over updates for
// as long as its address is in the file, or has sessions.
type Backend struct {
	ID   uint32 // never 0, never used again in this process, unique over all pools
	Addr Addr

	pool           *Pool
	received, sent atomic.Uint64

	// The rest is guarded by pool.mu.
	spec        Spec
	up          bool // the file wants sessions on it, and its name is resolved
	removed     bool
	failing     bool // its active check says so
	out         bool // told as ejected, not yet as back
	trial       bool // tried as a last resort since it was ejected
	wasLive     bool // live when list.arrivals last looked
	slow        slowStart
	failTimeout int64 // whole seconds

	// nginx's, by nginx's names.
	weight, currentWeight, effectiveWeight int64
	fails, accessed, checked               int64
	conns                                  int64

	lastWeight int64  // current weight in the round robin of last resorts
	mark       uint64 // equals pool.stamp: the session that picks has tried it

	total, failed  uint64
	why            string // how the last attempt failed
	connectSeconds float64
	connectBuckets [len(connectBounds)]uint64
}

// ids gives out backend numbers. It is the one thing that pools share: the
// dispatch program tells a pick by number alone, whichever pool it came from.
var ids idSource

type idSource struct{ last atomic.Uint32 }

func (s *idSource) next() uint32 {
	for {
		if id := s.last.Add(1); id != 0 {
			return id
		}
	}
}

// Spec is what the file says of the backend (said, when it is removed).
func (b *Backend) Spec() Spec {
	b.pool.mu.Lock()
	defer b.pool.mu.Unlock()
	return b.spec
}

// AddBytes adds to the payload bytes received from the backend and sent to it.
func (b *Backend) AddBytes(received, sent uint64) {
	if received != 0 {
		b.received.Add(received)
	}
	if sent != 0 {
		b.sent.Add(sent)
	}
}

// configure takes over what the file says and keeps the backend's place. With
// another weight the current weight is scaled, so that it owes or is owed the
// same share of a round as before.
func (b *Backend) configure(s Spec) {
	weight := int64(max(s.Weight, 1))
	switch {
	case b.weight == 0 || b.spec.Backup != s.Backup: // new, or new in this list
		b.currentWeight, b.lastWeight = 0, 0
		b.effectiveWeight = weight
		b.wasLive = false
	case b.weight != weight:
		b.currentWeight = b.currentWeight * weight / b.weight
		b.lastWeight = b.lastWeight * weight / b.weight
		if b.effectiveWeight == b.weight {
			b.effectiveWeight = weight
		}
		b.effectiveWeight = min(b.effectiveWeight, weight)
	}
	b.spec, b.weight = s, weight
	b.up = s.State != config.Down && s.State != config.Drain && s.Addr.Name == ""
	b.removed = false
	// nginx knows whole seconds only; a fraction rounds up, so that no backend
	// is out for less than the file says.
	b.failTimeout = int64(s.FailTimeout / time.Second)
	if s.FailTimeout%time.Second > 0 {
		b.failTimeout++
	}
}

// down is nginx's "down": it isn't counted as a possible attempt either.
func (b *Backend) down() bool { return b.spec.State == config.Down || b.spec.Addr.Name != "" }

// struck says that the backend has had max_fails failures and no success since.
func (b *Backend) struck() bool {
	return b.spec.MaxFails > 0 && b.fails >= int64(b.spec.MaxFails) && !b.pool.single
}

// ejected is struck until fail_timeout is over; then one session probes it.
func (b *Backend) ejected(sec int64) bool {
	return b.struck() && sec-b.checked <= b.failTimeout
}

func (b *Backend) full() bool {
	return b.spec.MaxConns > 0 && b.conns >= int64(b.spec.MaxConns)
}

// wanted says that the file wants sessions on the backend and that the one that
// picks hasn't tried it.
func (b *Backend) wanted() bool {
	return b.up && (!b.removed || b.pool.retired) && b.mark != b.pool.stamp
}

// possible is what even a last resort has to be.
func (b *Backend) possible() bool { return b.wanted() && !b.full() }

func (b *Backend) healthy(sec int64) bool { return !b.failing && !b.ejected(sec) }

func (b *Backend) eligible(sec int64) bool { return b.possible() && b.healthy(sec) }

// climb is the part of nginx's pick that each eligible backend takes part in:
// it returns what the backend adds to the total.
func (b *Backend) climb() int64 {
	ew := b.effectiveWeight
	b.currentWeight += ew
	if ew < b.weight {
		b.effectiveWeight++
	}
	return ew
}

// Gone says that no session is to come to the backend as things are: it has been
// removed, is draining or down.
func (b *Backend) Gone() bool {
	b.pool.mu.Lock()
	defer b.pool.mu.Unlock()
	return b.removed || !b.up
}
