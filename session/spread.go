// SPDX-License-Identifier: Apache-2.0

package session

import (
	"sluice/accesslog"
	"sluice/pool"
)

// Leg is a session's attempt at one of several backends that it goes to at once.
type Leg struct {
	Backend *pool.Backend
	First   int64 // when the backend's first byte came; 0: not yet

	s       *Session
	tried   int64
	took    int64 // -1 until connected
	over    bool
	attempt accesslog.Attempt // what is on record of it, once it is over
}

// Legs are those of a session that goes to several backends. Each ends by exactly
// one Failed or Done; the session's own Backend stays nil.
func (s *Session) Legs() []*Leg {
	if s.legs == nil {
		return nil
	}
	return *s.legs
}

// spread has the session go to every backend of its pool that may have sessions
// at all. Under the generation's lock.
func (s *Session) spread(now int64) Verdict {
	s.phase = connecting
	var legs []*Leg
	for _, b := range s.pool.Everyone() {
		legs = append(legs, &Leg{Backend: b, s: s, tried: now, took: -1})
	}
	if len(legs) == 0 {
		s.failed = append(s.failed, accesslog.Attempt{Addr: s.pool.Name()})
		return NoBackend
	}
	s.legs = &legs
	return Everywhere
}

// Reached says that the leg has got to its backend, at now.
func (l *Leg) Reached(now int64) {
	l.took = max(0, now-l.tried)
	l.s.pool.Connected(l.Backend, nanoseconds(l.took), l.s.registry.clock.Wall(now))
}

// Failed says that the leg hasn't got to its backend, and why; t is what it has
// moved. Only FromBackend and ToBackend count.
func (l *Leg) Failed(f Fault, why string, t Totals, now int64) {
	if l.over {
		return
	}
	l.record(t, now)
	wall := l.s.registry.clock.Wall(now)
	if f == BackendFault {
		l.s.pool.Failed(l.Backend, why, wall)
	} else {
		l.s.pool.Release(l.Backend, wall)
	}
}

// Done says that the leg is over. What it has moved goes to its backend's counters.
func (l *Leg) Done(t Totals, now int64) {
	if l.over {
		return
	}
	l.record(t, now)
	l.s.pool.Release(l.Backend, l.s.registry.clock.Wall(now))
}

func (l *Leg) record(t Totals, now int64) {
	l.over = true
	l.Backend.AddBytes(t.FromBackend, t.ToBackend)
	l.attempt = describe(l.Backend.Addr.Dialled(l.s.Server.Port()), l.tried, l.took, l.First, t, now)
}
