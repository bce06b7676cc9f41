// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"time"

	"sluice/accesslog"
)

// agedIdle is how long a session that is older than max_age may still be silent.
const agedIdle = int64(time.Second)

// expiry is when the session ends if no byte moves after last, and why; 0: not by
// itself. A later byte never brings it forward.
func (s *pair) expiry(last int64) (at int64, reason accesslog.EndReason) {
	c := s.Settings.Config
	if c.IdleTimeout > 0 {
		at, reason = last+int64(c.IdleTimeout), accesslog.IdleTimeout
	}
	if age := int64(c.MaxAge); age > 0 {
		old := s.Begun() + age
		if aged := min(max(old, last+agedIdle), old+age); at == 0 || aged < at {
			at, reason = aged, accesslog.MaxAge
		}
	}
	return at, reason
}

// due is when to look at a relayed session if nothing happens to it; 0: never.
func (s *pair) due() int64 {
	at, _ := s.expiry(s.last)
	if g := s.delivery; g != nil && (at == 0 || g.lookAt < at) {
		at = g.lookAt
	}
	if p := s.pace; p != nil {
		for _, until := range p.until {
			if until != 0 && (at == 0 || until < at) {
				at = until
			}
		}
	}
	return at
}

// relayExpired is the loop's call when a relayed session is due.
func (s *pair) relayExpired() {
	if s.fwd != nil && s.fwd.rec.Cut() {
		s.fwd.takeOver() // it has been silent to us alone
		return
	}
	switch {
	case s.isOverdue():
	case s.delivery != nil:
		s.awaitDelivery()
	case s.pace != nil:
		s.goOn()
		fallthrough
	default:
		if at := s.due(); s.state == stateRelay && at != 0 {
			s.loop.timers.set(s, at)
		}
	}
}

func (s *pair) isOverdue() bool {
	_, ended := s.overdue()
	return ended
}

// overdue ends the session if its time is over; else at is when that is as things are,
// 0: never.
func (s *pair) overdue() (at int64, ended bool) {
	l, last := s.loop, s.lastActive()
	at, reason := s.expiry(last)
	if at == 0 || l.now < at {
		return at, false
	}
	whole := reason != accesslog.MaxAge || l.now-last >= agedIdle // else in the middle of something
	for _, e := range s.ends() {
		whole = whole && e.held == nil && (s.mover == nil || s.mover.arrived(e))
	}
	if !whole {
		// Who misses bytes must not take this for the end. Nor would the other
		// side hear of a close: bytes that the kernel passed lie where it doesn't
		// look for unread ones.
		s.cut(reason)
		return at, true
	}
	s.finish(200, reason)
	return at, true
}
