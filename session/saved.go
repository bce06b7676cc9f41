// SPDX-License-Identifier: Apache-2.0

package session

import (
	"net/netip"
	"time"

	"sluice/accesslog"
	"sluice/config"
	"sluice/pool"
)

// mostSaved is how many attempts are saved of a session: the last ones.
const mostSaved = 4

// Saved is what a process has to know of a session that another one has served so far.
// Times are of CLOCK_MONOTONIC, in ns, which all processes of a host share. The tags are
// its layout: a number never gets another meaning, and what is added later may be absent.
type Saved struct {
	ID       uint64         `cbor:"1,keyasint"`
	Listener string         `cbor:"2,keyasint"`
	Pool     string         `cbor:"3,keyasint"`
	Backend  netip.AddrPort `cbor:"4,keyasint"`
	Client   netip.AddrPort `cbor:"5,keyasint"`
	Server   netip.AddrPort `cbor:"6,keyasint"`
	Begun    int64          `cbor:"7,keyasint"`
	Tried    int64          `cbor:"8,keyasint"`
	Took     int64          `cbor:"9,keyasint"`
	First    int64          `cbor:"10,keyasint,omitempty"`
	Named    bool           `cbor:"11,keyasint,omitempty"`
	Failed   []savedAttempt `cbor:"12,keyasint,omitempty"`

	// What its listener's options are, should it be gone from the file by then.
	IdleTimeout time.Duration  `cbor:"13,keyasint,omitempty"`
	MaxAge      time.Duration  `cbor:"14,keyasint,omitempty"`
	Keepalive   time.Duration  `cbor:"15,keyasint,omitempty"`
	DeadPeer    time.Duration  `cbor:"16,keyasint,omitempty"`
	HalfClose   bool           `cbor:"17,keyasint,omitempty"`
	AccessLog   config.LogMode `cbor:"18,keyasint,omitempty"`
	CloseWith   bool           `cbor:"19,keyasint,omitempty"` // on_datapath: close
	ProxyAccept bool           `cbor:"20,keyasint,omitempty"`
}

// savedAttempt is an attempt that failed: no byte has moved.
type savedAttempt struct {
	Addr    string        `cbor:"1,keyasint"`
	Session time.Duration `cbor:"2,keyasint,omitempty"`
}

// Save is what Resume needs of a session that a backend has.
func (s *Session) Save() Saved {
	c := s.Settings.Config
	v := Saved{
		ID: s.ID, Listener: c.Name, Pool: s.pool.Name(), Backend: s.Backend.Addr.AddrPort, Client: s.Client, Server: s.Server,
		Begun: s.begun, Tried: s.tried, Took: s.took, First: s.First, Named: s.named,
		IdleTimeout: c.IdleTimeout, MaxAge: c.MaxAge, Keepalive: c.Keepalive, DeadPeer: c.DeadPeer, HalfClose: c.HalfClose,
		AccessLog: c.AccessLog, CloseWith: c.OnDatapathClose, ProxyAccept: c.ProxyAccept,
	}
	for _, a := range s.failed[max(0, len(s.failed)-mostSaved):] {
		v.Add(a)
	}
	return v
}

// Add appends an attempt that failed.
func (v *Saved) Add(a accesslog.Attempt) {
	v.Failed = append(v.Failed, savedAttempt{a.Addr, a.Session})
}

// Shorten forgets the oldest attempt; false: there is none.
func (v *Saved) Shorten() bool {
	if len(v.Failed) == 0 {
		return false
	}
	v.Failed = v.Failed[1:]
	return true
}

// Config is that of the session's listener as far as it is saved.
func (v *Saved) Config() *config.Listener {
	return &config.Listener{
		Name: v.Listener, Pool: v.Pool, Datapath: config.Offload,
		IdleTimeout: v.IdleTimeout, MaxAge: v.MaxAge, Keepalive: v.Keepalive, DeadPeer: v.DeadPeer, HalfClose: v.HalfClose,
		AccessLog: v.AccessLog, OnDatapathClose: v.CloseWith, ProxyAccept: v.ProxyAccept,
	}
}

// Resume makes s the session that was saved, in a process of its own: with these
// settings, counted by them, by its backend and by r. It stands in for Arrived, Begin
// and what follows up to Reached. Under Registry.Update, so that nobody who comes
// meanwhile is let in in its place. t is what it has moved so far, which these counters
// leave out: they begin with the process.
func (s *Session) Resume(r *Registry, v *Saved, set *Settings, p *pool.Pool, b *pool.Backend, t Totals) {
	*s = Session{
		registry: r, ID: v.ID, Settings: set, Client: v.Client, Server: v.Server, First: v.First,
		pool: p, begun: v.Begun, tried: v.Tried, took: v.Took, named: v.Named, phase: reached, counted: t,
	}
	r.Arrived()
	for last := r.ids.Load(); last < v.ID && !r.ids.CompareAndSwap(last, v.ID); {
		last = r.ids.Load()
	}
	for _, a := range v.Failed {
		s.failed = append(s.failed, accesslog.Attempt{Addr: a.Addr, Session: a.Session})
	}
	s.Backend = b
	p.Resume(b)
	if l := set.Limits; l != nil {
		s.limited, _ = l.enter(s.Client.Addr(), 0, 0)
	}
	set.Counters.Total.Add(1)
	set.Counters.Active.Add(1)
}

// Leave ends this process's part in a session that goes on without it: no record, and
// its places are free. It stands in for End and Left.
func (s *Session) Leave(now int64) {
	s.pool.Release(s.Backend, s.registry.clock.Wall(now))
	s.leaveLimits()
	s.phase = ended
	s.Settings.Counters.Active.Add(-1)
	s.registry.left()
}
