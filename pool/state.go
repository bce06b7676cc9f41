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
// says whether one of them takes part in the primaries' order. One that it tried
// in another pool, or before it was removed and put back, is the same server.
func (p *Pool) markTried(s *State) (primary bool) {
	p.stamp++
	mark := func(b *Backend) {
		if b.pool != p || b.removed {
			b = p.at(b.Addr)
		}
		if b != nil {
			b.mark = p.stamp
			primary = primary || b.ordered()
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

// at is the backend with this address, nil if there is none.
func (p *Pool) at(a Addr) *Backend {
	for _, b := range p.byID {
		if b.Addr == a {
			return b
		}
	}
	return nil
}
