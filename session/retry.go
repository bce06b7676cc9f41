// SPDX-License-Identifier: Apache-2.0

package session

import "time"

// Fault is whose a failed attempt is.
type Fault uint8

// The faults.
const (
	BackendFault Fault = iota // refused, unreachable, timed out, not permitted: it counts toward its ejection
	LackToward                // a lack of ours that concerns this backend only: the next one is tried, and nobody is blamed
	Lack                      // a lack of ours that the next one would meet too
	Declined                  // it is there, and has not taken this call on: nobody is blamed
)

// Failed puts the attempt under way behind and picks again. why is the failure
// in words, for the log; t is what the session has moved so far. The verdict is
// Picked, NoBackend, Exhausted or Crowded.
func (s *Session) Failed(c Carrier, f Fault, why string, t Totals, now int64) Verdict {
	s.failed = append(s.failed, s.presentAttempt(t, now))
	wall := s.registry.clock.Wall(now)
	switch f {
	case BackendFault:
		s.pool.Failed(s.Backend, why, wall)
	case Declined:
		s.pool.Release(s.Backend, wall)
	default:
		s.lacked = true
		s.pool.Release(s.Backend, wall)
	}
	s.Backend, s.phase = nil, connecting
	s.tries--
	limit := s.Settings.Config.TryTimeout
	if f == Lack || s.tries <= 0 || limit > 0 && now-s.begun >= int64(limit) {
		return Exhausted
	}
	return s.Choose(c, now)
}

func nanoseconds(n int64) time.Duration { return time.Duration(max(0, n)) }
