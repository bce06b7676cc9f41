// SPDX-License-Identifier: Apache-2.0

package session

import (
	"net/netip"

	"sluice/accesslog"
	"sluice/pool"
)

// phase is how far a session has got.
type phase uint8

const (
	accepted   phase = iota // just now
	entering                // let in by allow and deny; perhaps its client has to say who it is first
	connecting              // counted in; an attempt is under way, or was the last
	reached                 // a backend has it
	ended
)

// Session is one client connection or call, from its arrival to its end. Who
// carries it embeds one by value, calls Begin before anything else and End
// exactly once. Its methods are not to be called at once with each other; times
// are of the registry's clock, in ns.
type Session struct {
	// ID is $connection.
	ID uint64
	// Settings are those of the session's listener; replaced until its first
	// pick. Its Pool is that of the first pick, see Pool.
	Settings *Settings
	// Client is the TCP peer, or what its PROXY header said; zero for a unix one.
	Client netip.AddrPort
	// Server is the local end of the client's connection; zero if not needed or unix.
	Server netip.AddrPort
	// Backend is that of the attempt under way or of the one that succeeded.
	Backend *pool.Backend
	// First is when the backend's first byte came; 0: not yet. The carrier sets it.
	First int64

	registry *Registry
	pool     *pool.Pool // of the last pick
	picks    pool.State
	failed   []accesslog.Attempt
	legs     *[]*Leg // of one that goes to several backends at once; a pointer, as most have none
	begun    int64
	tried    int64 // start of the present attempt
	took     int64 // its connect time; -1 until connected
	tries    int32

	phase   phase
	limited bool // counted by the listener's limits
	lacked  bool // a backend couldn't be dialled for a lack of our own
	named   bool // Client is what a PROXY header said
	call    bool // one of the calls of a connection, which was let in before
	plain   bool // a connection that carries no calls, of a listener for calls
	listed  bool // counted among its listener's sessions
	fell    Fallback
	crowd   crowd

	counted Totals // what the counters have got so far
}

// Totals are a session's payload bytes so far.
type Totals struct {
	FromClient, ToClient   uint64
	FromBackend, ToBackend uint64 // of the present attempt; an outgoing PROXY header counts as sent
}

// Carrier is what a session needs of who carries it while it is chosen for.
type Carrier interface {
	// Follow gives the settings that the session's listen address has now: an
	// edit may have given it to another listener since the accept. It is called
	// under the generation's lock and must not wait.
	Follow() *Settings
}

// Router is a Carrier whose session may go elsewhere than to its listener's pool.
type Router interface {
	Carrier
	// Route gives the pool of a session of these settings. It is called as Follow is.
	Route(*Settings) *pool.Pool
	// Everywhere says, of the last Route, that the session goes to all backends of
	// the pool at once.
	Everywhere() bool
}

// Begin makes s a session that arrived at now. Registry.Arrived was called for
// it before.
func (s *Session) Begin(r *Registry, client netip.AddrPort, now int64) {
	*s = Session{registry: r, ID: r.ids.Add(1), Client: client, begun: now, took: -1}
}

// Begun is when the session arrived.
func (s *Session) Begun() int64 { return s.begun }

// Pool is that of the last pick, before the first one that of the settings.
func (s *Session) Pool() *pool.Pool { return s.pool }

// Named says that the client is client, by its PROXY header. From the next
// choice on the session is that one's.
func (s *Session) Named(client netip.AddrPort) {
	s.named = true
	s.Client = client
}

// Reached says that the attempt under way has succeeded, at now.
func (s *Session) Reached(now int64) {
	s.took = max(0, now-s.tried)
	s.phase = reached
	s.pool.Connected(s.Backend, nanoseconds(s.took), s.registry.clock.Wall(now))
}

// Target is where the backend that was picked is dialled: one without a port at
// the port that the client came to, which Server then has to tell.
func (s *Session) Target() pool.Addr { return s.Backend.Addr.Dialled(s.Server.Port()) }

// HasBackend says whether a backend has the session.
func (s *Session) HasBackend() bool { return s.phase == reached }
