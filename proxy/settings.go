// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"
	"sync"

	"sluice/config"
	"sluice/pool"
	"sluice/stats"
)

// Settings are what a listener's new sessions go by. Immutable once handed to
// a Front; a session keeps those it began with.
type Settings struct {
	Config   *config.Listener
	Pool     *pool.Pool
	Counters *stats.Listener
	// Limits counts the listener's sessions; the same one for as long as the
	// listener has its name. Nil: nothing is limited.
	Limits *Limits
	// SpliceAllowed lets sessions enter the map.
	SpliceAllowed bool
	// Dispatched says that the listener's addresses are known to the
	// sk_lookup program, so that an accepted connection may have a pick.
	Dispatched bool
	// TCPInfo asks for round-trip times and retransmissions in the records.
	TCPInfo bool
	// ServerAddr asks for the local end of the client's connection in the records.
	ServerAddr bool
}

// Limits enforces max_conns and max_conns_per_ip of one listener, exactly,
// over all loops.
type Limits struct {
	mu    sync.Mutex
	total int
	perIP map[netip.Addr]int
}

// NewLimits returns an empty count.
func NewLimits() *Limits { return &Limits{perIP: make(map[netip.Addr]int)} }

// enter counts a session in, unless that would exceed a limit (0: none).
// Sessions over unix sockets have no address and are under the first only.
func (l *Limits) enter(ip netip.Addr, max, maxPerIP int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if max > 0 && l.total >= max {
		return false
	}
	if ip.IsValid() {
		if maxPerIP > 0 && l.perIP[ip] >= maxPerIP {
			return false
		}
		l.perIP[ip]++
	}
	l.total++
	return true
}

func (l *Limits) leave(ip netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if ip.IsValid() {
		if l.perIP[ip]--; l.perIP[ip] <= 0 {
			delete(l.perIP, ip)
		}
	}
}

// admitted is nginx's rule: in allow, accepted; in deny, or allow not empty,
// refused; else accepted. A unix client has no address: only "nothing is
// allowed but a list" shuts it out.
func admitted(c *config.Listener, ip netip.Addr) bool {
	for _, p := range c.Allow {
		if p.Contains(ip) {
			return true
		}
	}
	for _, p := range c.Deny {
		if p.Contains(ip) {
			return false
		}
	}
	return len(c.Allow) == 0
}
