// SPDX-License-Identifier: Apache-2.0

// Package session is the half that every session shares, whatever carries its
// bytes: admission, the generation of settings that it belongs to, picks and
// retries, counters, and the record at its end. It opens nothing and knows no
// socket; who carries a session embeds a Session by value and tells it what
// happened.
package session

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"sluice/accesslog"
	"sluice/internal/mono"
)

// Dispatch knows what the sk_lookup program picked for a connection.
type Dispatch interface {
	// Redeem returns the Backend.ID picked for the connection from client to
	// server, and forgets it.
	Redeem(client, server netip.AddrPort) (backendID uint32, ok bool)
	// Ended says that the connection is about to be closed: what still comes of
	// it is no new one.
	Ended(client, server netip.AddrPort)
}

// Options configure a Registry.
type Options struct {
	// Record is called once at the end of each session; the record is the
	// callee's only during the call. line: the listener's option asks for a
	// line of the access log. Nil: records go nowhere.
	Record   func(r *accesslog.Record, line bool)
	Dispatch Dispatch // nil: every pick is made at accept
}

// Registry is what all sessions of a process have in common, whoever carries
// them: their numbers, their count, the generation of settings in force, and
// where their records go. All methods may be called from any goroutine.
type Registry struct {
	record   func(*accesslog.Record, bool)
	dispatch Dispatch
	clock    mono.Clock

	// generation: a session takes its listener's settings and its pick under
	// the read side; an update of all pools and listeners holds the write side.
	generation sync.RWMutex

	ids  atomic.Uint64
	live atomic.Int64

	mu   sync.Mutex
	idle []chan struct{}
}

// NewRegistry makes a registry without sessions. It holds nothing that has to
// be closed.
func NewRegistry(o Options) *Registry {
	r := &Registry{record: o.Record, dispatch: o.Dispatch, clock: mono.New()}
	if r.record == nil {
		r.record = func(*accesslog.Record, bool) {}
	}
	return r
}

// Clock is the clock of the times, in ns, that sessions are told.
func (r *Registry) Clock() mono.Clock { return r.clock }

// Update runs f while no session takes its settings or a pick, so that one
// generation covers all pools and listeners. f must not wait for a carrier.
func (r *Registry) Update(f func()) {
	r.generation.Lock()
	defer r.generation.Unlock()
	f()
}

// Live is how many sessions there are.
func (r *Registry) Live() int { return int(r.live.Load()) }

// Arrived counts a connection that was accepted and has no Session yet. Its
// Begin and End follow, perhaps elsewhere, so that Idle doesn't miss it.
func (r *Registry) Arrived() { r.live.Add(1) }

// Idle returns a channel that is closed once no session is live.
func (r *Registry) Idle() <-chan struct{} {
	c := make(chan struct{})
	r.mu.Lock()
	r.idle = append(r.idle, c)
	r.mu.Unlock()
	if r.live.Load() == 0 {
		r.tellIdle()
	}
	return c
}

func (r *Registry) left() {
	if r.live.Add(-1) == 0 {
		r.tellIdle()
	}
}

func (r *Registry) tellIdle() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.idle {
		close(c)
	}
	r.idle = nil
}
