// SPDX-License-Identifier: Apache-2.0

package session

import (
	"net/netip"
	"sync/atomic"
	"time"

	"sluice/config"
	"sluice/pool"
	"sluice/stats"
)

// Settings are what a listener's new sessions go by. Immutable once in force; a
// session goes by those that it took with its pick.
type Settings struct {
	Config   *config.Listener
	Pool     *pool.Pool
	Counters *stats.Listener
	// Calls is what a listener has that balances calls; nil: it balances connections.
	Calls *Calls
	// Limits counts the listener's sessions; the same one for as long as the
	// listener has its name. Nil: nothing is limited.
	Limits *Limits
	// SpliceAllowed lets sessions enter the map.
	SpliceAllowed bool
	// OffloadAllowed lets their packets be forwarded.
	OffloadAllowed bool
	// Reason is why no session gets a better datapath than the listener's; ""
	// where none is better.
	Reason string
	// Dispatched says that the listener's addresses are known to the
	// sk_lookup program, so that an accepted connection may have a pick.
	Dispatched bool
	// TCPInfo asks for round-trip times and retransmissions in the records.
	TCPInfo bool
	// ServerAddr asks for the local end of the client's connection in the records.
	ServerAddr bool
}

// Calls is what the calls of a listener go by.
type Calls struct {
	// Routes are those of Config.GRPC, in the same order: each one's pool.
	Routes []*pool.Pool
	// Drain is how long a connection that is too old may go on with its calls.
	Drain time.Duration
}

// Source is where the settings in force of a front are found. They are replaced
// within Registry.Update.
type Source = atomic.Pointer[Settings]

// Admits says whether allow and deny let a client with this address in; the
// zero value is a unix client's.
func (set *Settings) Admits(client netip.Addr) bool { return admitted(set.Config, client) }

// admitted is nginx's rule: in allow, accepted; in deny, or allow not empty,
// refused; else accepted. A unix client has no address: only rules for all or
// unix name it.
func admitted(c *config.Listener, ip netip.Addr) bool {
	for _, r := range c.Allow {
		if r.Matches(ip) {
			return true
		}
	}
	for _, r := range c.Deny {
		if r.Matches(ip) {
			return false
		}
	}
	return len(c.Allow) == 0
}
