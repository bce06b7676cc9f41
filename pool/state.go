// SPDX-License-Identifier: Apache-2.0

package pool

import "net/netip"

// State is what one session carries from attempt to attempt, in one pool. The
// zero value, with Key set, is a new session. Not for concurrent use.
type State struct {
	Key netip.Addr // hash key: the client's address without port; zero for a unix socket

	tried [4]*Backend
	n     int
	more  []*Backend
}

func (s *State) add(b *Backend) {
	if s.n < len(s.tried) {
		s.tried[s.n] = b
		s.n++
		return
	}
	s.more = append(s.more, b)
}

// Tried is how many backends the session has been given so far.
func (s *State) Tried() int { return s.n + len(s.more) }

// markTried makes this session's tried backends recognisable by their mark, and
// says whether one of them takes part in the primaries' order.
func (p *Pool) markTried(s *State) (primary bool) {
	p.stamp++
	mark := func(b *Backend) {
		if b.pool == p {
			b.mark = p.stamp
			primary = primary || (b.up && !b.removed && !b.spec.Backup)
		}
	}
	for _, b := range s.tried[:s.n] {
		mark(b)
	}
	for _, b := range s.more {
		mark(b)
	}
	return primary
}
