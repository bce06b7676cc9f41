// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
)

// Listener holds the counters of one listener. The datapaths write them, the
// snapshot reads them. It must not be copied.
type Listener struct {
	Name     string
	Active   atomic.Int64  // live sessions
	Total    atomic.Uint64 // sessions accepted
	Received atomic.Uint64 // payload bytes from clients
	Sent     atomic.Uint64 // payload bytes to clients

	calls atomic.Pointer[Calls] // nil: it has never balanced calls

	mu        sync.Mutex
	ended     map[endKey]uint64
	fallbacks map[string]uint64
}

type endKey struct {
	datapath string
	status   int
}

// NewListener returns counters that are all 0.
func NewListener(name string) *Listener { return &Listener{Name: name} }

// HasCalls says that the listener balances calls.
func (l *Listener) HasCalls() { l.calls.CompareAndSwap(nil, &Calls{}) }

// Calls are its counters of calls, nil if it has never balanced any.
func (l *Listener) Calls() *Calls { return l.calls.Load() }

// Ended counts a session that has ended. datapath is "nat", "splice", "relay",
// or "-" (also "") if no backend was reached.
func (l *Listener) Ended(datapath string, status int) {
	if datapath == "" {
		datapath = "-"
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended == nil {
		l.ended = make(map[endKey]uint64)
	}
	l.ended[endKey{datapath, status}]++
}

// Fallback counts a session that fell to a lower datapath. The reason becomes a
// label: it comes from a small fixed set, never from a peer.
func (l *Listener) Fallback(reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fallbacks == nil {
		l.fallbacks = make(map[string]uint64)
	}
	l.fallbacks[reason]++
}

// SessionCount is a number of ended sessions.
type SessionCount struct {
	Datapath string
	Status   int
	Count    uint64
}

// Snapshot fills in the counters; the caller adds what only the configuration
// knows (Listen, Pool, Protocol, Datapath, Reason).
func (l *Listener) Snapshot() ListenerStats {
	s := ListenerStats{
		Name:          l.Name,
		Active:        max(l.Active.Load(), 0),
		Total:         l.Total.Load(),
		BytesReceived: l.Received.Load(),
		BytesSent:     l.Sent.Load(),
	}
	if c := l.calls.Load(); c != nil {
		s.Calls = c.Snapshot()
		s.Connections = &s.Calls.Clients
	}
	l.mu.Lock()
	for k, n := range l.ended {
		s.Sessions = append(s.Sessions, SessionCount{k.datapath, k.status, n})
	}
	s.Fallbacks = make(map[string]uint64, len(l.fallbacks))
	for reason, n := range l.fallbacks {
		s.Fallbacks[reason] = n
	}
	l.mu.Unlock()
	slices.SortFunc(s.Sessions, func(a, b SessionCount) int {
		return cmp.Or(cmp.Compare(a.Datapath, b.Datapath), cmp.Compare(a.Status, b.Status))
	})
	return s
}
