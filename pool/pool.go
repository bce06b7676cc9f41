// SPDX-License-Identifier: Apache-2.0

// Package pool decides who is next: schedules, picks, ejection, limits,
// draining. It is pure (no clock, no sockets, no goroutines of its own) and
// knows nothing of how a session's bytes move.
package pool

import (
	"net/netip"
	"time"
)

// Addr is where a backend is reached, and its identity within its pool.
// Comparable. Exactly one of AddrPort, Unix, Name is set.
type Addr struct {
	AddrPort netip.AddrPort // port 0: the port that the client came to, see Dialled
	Unix     string
	Name     string // name:port that has not resolved yet; such a backend is down
}

// String is the address as nginx prints it: 1.2.3.4:5, [::1]:5, unix:/path; and
// 1.2.3.4 or [::1] where it has no port.
func (a Addr) String() string {
	switch {
	case a.Unix != "":
		return "unix:" + a.Unix
	case a.Name != "":
		return a.Name
	case a.Portless() && a.AddrPort.Addr().Is6():
		return "[" + a.AddrPort.Addr().String() + "]"
	case a.Portless():
		return a.AddrPort.Addr().String()
	}
	return a.AddrPort.String()
}

// Portless says that the backend is reached at the port that its client came to.
func (a Addr) Portless() bool { return a.AddrPort.IsValid() && a.AddrPort.Port() == 0 }

// Dialled is where a client that came to this port is taken.
func (a Addr) Dialled(port uint16) Addr {
	if a.Portless() {
		a.AddrPort = netip.AddrPortFrom(a.AddrPort.Addr(), port)
	}
	return a
}

// Board is the pick window shared with the dispatch program. A pool without
// BPF has none. All calls come under the pool's lock.
type Board interface {
	// Open makes picks the coming ones, in order; ids are Backend.ID. BPF takes
	// none from the moment until on; the zero time: no bound.
	Open(picks []uint32, until time.Time)
	// Close stops the handing out and returns how many of the picks last
	// opened were taken, by BPF and by Take together.
	Close() (taken int)
	// Take takes the next pick for userspace, ok false when none is left.
	Take() (index int, ok bool)
}
