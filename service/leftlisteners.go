// SPDX-License-Identifier: Apache-2.0

package service

import (
	"slices"
	"time"
)

// listenerOf is what is known of a listener by its name, also of one that an edit has
// removed and whose sessions aren't over. Nil: nothing.
func (s *Service) listenerOf(name string) *listenerEntry {
	if e := s.listeners[name]; e != nil {
		return e
	}
	for i, e := range s.left {
		if e.cfg.Name == name {
			s.left = slices.Delete(s.left, i, i+1)
			return e
		}
	}
	return nil
}

// retireListeners keeps those in view that aren't among the next ones: their sessions
// live on.
func (s *Service) retireListeners(next map[string]*listenerEntry) {
	for name, e := range s.listeners {
		if next[name] == nil {
			e.leftAt = time.Now()
			s.left = append(s.left, e)
		}
	}
	slices.SortFunc(s.left, func(a, b *listenerEntry) int { return a.leftAt.Compare(b.leftAt) })
}

// sweepListeners forgets removed listeners whose last session has ended. One whose
// accept queue may still be served isn't forgotten.
func (s *Service) sweepListeners(now time.Time) {
	n := len(s.left)
	if n == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = slices.DeleteFunc(s.left, func(e *listenerEntry) bool {
		return e.counters.Active.Load() <= 0 && now.Sub(e.leftAt) > queueTime
	})
	if len(s.left) < n {
		s.look()
	}
}
