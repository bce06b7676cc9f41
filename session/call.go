// SPDX-License-Identifier: Apache-2.0

package session

import "net/netip"

// Admission is the place of a connection that carries calls, each of them a
// Session, in the limits of the listener that has let it in.
type Admission struct {
	// Client is the TCP peer, or what its PROXY header said; zero for a unix one.
	Client netip.AddrPort
	// Named says that a PROXY header said it.
	Named bool

	registry *Registry
	limits   *Limits // nil: not counted
}

// Plain says that the connection carries no calls: it is a session itself.
// Choose follows.
func (s *Session) Plain() { s.plain = true }

// Yield ends s as a session without a line, as its connection carries calls: it
// is counted nowhere but in its listener's limits. Leave ends what it returns.
func (s *Session) Yield() *Admission {
	a := &Admission{Client: s.Client, Named: s.named, registry: s.registry}
	if s.limited {
		a.limits, s.limited = s.Settings.Limits, false
	}
	s.unlist()
	s.phase = ended
	return a
}

// Leave gives the connection's place back. It is live until then.
func (a *Admission) Leave() {
	if a.limits != nil {
		a.limits.leave(a.Client.Addr())
	}
	a.registry.left()
}

// BeginCall makes s a call that arrived at now on an admitted connection. Its
// Carrier is a Router. As with any session End and Left follow.
func (s *Session) BeginCall(a *Admission, now int64) {
	a.registry.Arrived()
	s.Begin(a.registry, a.Client, now)
	s.named, s.call = a.Named, true
}
