// SPDX-License-Identifier: Apache-2.0

package session

import (
	"sluice/accesslog"
	"sluice/pool"
)

// Verdict is what becomes of a session by the generation in force.
type Verdict uint8

// The verdicts. Denied, Limited and NoBackend are followed by End.
const (
	Picked      Verdict = iota // Backend is to be dialled
	NoBackend                  // no backend is left to try
	Exhausted                  // the last attempt that is allowed has failed
	Denied                     // by allow or deny
	Limited                    // its listener, or its address, has as many sessions as it may
	WantsHeader                // the client has to say who it is first: Named, then Choose
	// WantsProtocol: what the connection's first bytes are decides. It is a plain
	// session: Plain, then Choose. It carries calls: Yield.
	WantsProtocol
	Everywhere // Legs are to be dialled, all of them
	// Crowded: a limit is in the way, but not every end that has arrived is known
	// to have been seen to. The carrier does that, and calls Again.
	Crowded
)

// Refusal is the status and the reason of a session that ends by this verdict.
func (s *Session) Refusal(v Verdict) (status int, reason accesslog.EndReason) {
	switch v {
	case Denied:
		return 403, accesslog.Denied
	case Limited:
		return 503, accesslog.Limited
	}
	if s.lacked { // it might have been served but for a lack of our own
		return 500, accesslog.Internal
	}
	if v == Exhausted {
		return 502, accesslog.ConnectFailed
	}
	return 502, accesslog.NoBackend
}

// Choose takes the session on by the generation in force, which covers all
// pools and listeners: nothing of it changes in here. A session takes its
// settings once, with its first pick, so not before its header is there. A
// retry takes the pool that the listener has by now, for the old one may be
// gone.
func (s *Session) Choose(c Carrier, now int64) Verdict {
	s.registry.generation.RLock()
	defer s.registry.generation.RUnlock()
	switch s.phase {
	case accepted:
		s.follow(c)
		if s.call {
			s.phase = entering
			if r, ok := c.(Router); ok && r.Everywhere() {
				return s.spread(now)
			}
			return s.enter(now)
		}
		conf := s.Settings.Config
		if (len(conf.Allow) > 0 || len(conf.Deny) > 0) && !admitted(conf, s.Client.Addr()) {
			return Denied
		}
		s.phase = entering
		if conf.ProxyAccept {
			return WantsHeader
		}
		return s.enter(now)
	case entering:
		s.follow(c)
		return s.enter(now)
	}
	if p := poolOf(c, c.Follow()); p != s.pool {
		s.pool, s.crowd.at = p, noGate
	}
	return s.pick(0, now)
}

// poolOf is the pool that set has for c's session.
func poolOf(c Carrier, set *Settings) *pool.Pool {
	if r, ok := c.(Router); ok {
		return r.Route(set)
	}
	return set.Pool
}

// follow has the session go by the settings that it is to have now. If it went
// by another listener's so far it is that one's no longer. Under the
// generation's lock.
func (s *Session) follow(c Carrier) {
	set := c.Follow()
	if set == s.Settings {
		return
	}
	s.unlist()
	s.leaveLimits()
	s.crowd.at = noGate
	s.Settings, s.pool = set, poolOf(c, set)
	if set.Calls == nil || s.call || s.plain {
		s.list()
	}
}

// list counts the session among its listener's, unless it is. A connection that
// may carry calls isn't one as long as that is open.
func (s *Session) list() {
	if !s.listed {
		s.listed = true
		s.Settings.Counters.Total.Add(1)
		s.Settings.Counters.Active.Add(1)
	}
}

func (s *Session) unlist() {
	if s.listed {
		s.listed = false
		s.Settings.Counters.Total.Add(^uint64(0))
		s.Settings.Counters.Active.Add(-1)
	}
}

// enter counts the session in and takes its first pick. Under the generation's
// lock.
func (s *Session) enter(now int64) Verdict {
	c := s.Settings.Config
	if l := s.Settings.Limits; l != nil && !s.limited && !s.call {
		ok, left := l.enter(s.Client.Addr(), c.MaxConns, c.MaxConnsPerIP)
		switch {
		case ok:
			s.limited = true
		case s.refused(atLimits, left):
			return Limited
		default:
			return Crowded
		}
	}
	if s.Settings.Calls != nil && !s.call && !s.plain {
		return WantsProtocol
	}
	s.list()
	s.picks.Key = s.Client.Addr()
	s.tries = int32(s.pool.Tries())
	if c.Tries > 0 {
		s.tries = min(s.tries, int32(c.Tries))
	}
	v := s.pick(s.proposal(), now)
	if v != Crowded {
		s.phase = connecting
	}
	return v
}

// leaveLimits gives the session's place in its listener's limits back.
func (s *Session) leaveLimits() {
	if s.limited {
		s.Settings.Limits.leave(s.Client.Addr())
		s.limited = false
	}
}

// proposal is the backend that the kernel has picked, 0 if it hasn't.
func (s *Session) proposal() uint32 {
	r := s.registry
	if s.Settings.Dispatched && r.dispatch != nil && s.Client.IsValid() && !s.named {
		if id, ok := r.dispatch.Redeem(s.Client, s.Server); ok {
			return id
		}
	}
	return 0
}

// pick begins an attempt with the proposed backend, or the next one.
func (s *Session) pick(proposal uint32, now int64) Verdict {
	wall := s.registry.clock.Wall(now)
	b, full, left := s.pool.PickOrFull(&s.picks, proposal, wall)
	if full {
		if !s.refused(atBackends, left) {
			return Crowded
		}
		b = s.pool.Pick(&s.picks, wall)
	}
	s.Backend, s.tried, s.took, s.crowd = b, now, -1, crowd{}
	if b == nil {
		s.failed = append(s.failed, accesslog.Attempt{Addr: s.pool.Name()})
		return NoBackend
	}
	return Picked
}
