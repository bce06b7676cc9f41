// SPDX-License-Identifier: Apache-2.0

package service

import (
	"time"

	"sluice/pool"
)

// onRemove is what becomes of the sessions of a backend that leaves the file.
// The option of the last file that has the pool counts, also for backends that
// were removed before it was written.
type onRemove struct {
	close bool          // reset at once
	after time.Duration // reset what is left then; 0: drained, however long it takes
}

// due is when the sessions of a backend that was removed at since are cut;
// zero: never.
func (o onRemove) due(since time.Time) time.Time {
	switch {
	case o.close:
		return since
	case o.after > 0:
		return since.Add(o.after)
	}
	return time.Time{}
}

// dueRemovals are the backends whose sessions are to be cut now. It sees to it
// that it is asked again when more are. Under s.mu.
func (s *Service) dueRemovals(now time.Time) (cut []*pool.Backend) {
	removed := make(map[*pool.Backend]time.Time)
	var next time.Time
	look := func(e *poolEntry) {
		for _, b := range e.pool.Removed() {
			since, known := s.removed[b]
			if !known {
				since = now
			}
			removed[b] = since
			switch due := e.due(since); {
			case due.IsZero():
			case !due.After(now):
				cut = append(cut, b)
			case next.IsZero() || due.Before(next):
				next = due
			}
		}
	}
	for _, e := range s.pools {
		look(e)
	}
	for _, e := range s.gone {
		look(e)
	}
	s.removed = removed
	s.cuts.Stop()
	if !next.IsZero() {
		s.cuts.Reset(next.Sub(now))
	}
	return cut
}

// cutRemoved resets the sessions whose time has come.
func (s *Service) cutRemoved() {
	s.mu.Lock()
	cut := s.dueRemovals(time.Now())
	s.mu.Unlock()
	s.carriers.Cut(cut)
}
