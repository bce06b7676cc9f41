// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sluice/session"
)

// tellLack writes why a backend couldn't be dialled for a lack of ours, and
// what helps.
func (e *Engine) tellLack(now int64, listener, backend string, errno unix.Errno) {
	missed, ok := e.lacks.take(now)
	if !ok {
		return
	}
	e.log.Warn().Str("listener", listener).Str("backend", backend).Str("error", errno.Error()).Uint64("count", missed+1).
		Msg("a backend can't be dialled for a lack of this host's: " + session.LackHint(errno))
}

// seldom lets something be said once a second at most, by whichever loop is first.
type seldom struct {
	at     atomic.Int64 // of the last time, on the engine's clock
	missed atomic.Uint64
}

// take says whether it is time again, and how often it wasn't since the last time.
func (s *seldom) take(now int64) (missed uint64, ok bool) {
	last := s.at.Load()
	if last != 0 && now-last < int64(time.Second) || !s.at.CompareAndSwap(last, now) {
		s.missed.Add(1)
		return 0, false
	}
	return s.missed.Swap(0), true
}
