// SPDX-License-Identifier: Apache-2.0

package session

import (
	"time"

	"sluice/accesslog"
	"sluice/pool"
)

// Outcome is how a session ended, as only its carrier can say.
type Outcome struct {
	Status int
	Reason accesslog.EndReason
	Totals Totals
	// Datapath is the best one on which bytes moved; not looked at where no
	// backend was reached.
	Datapath string
	Spliced  uint64 // of both directions, moved by the kernel
	// Server is $server_addr of a unix front: its path.
	ServerPath             string
	ClientRTT, UpstreamRTT time.Duration  // <= 0: not measurable
	UpstreamRetrans        int64          // < 0: not measurable
	RPC                    *accesslog.RPC // nil: no call
}

// End ends the session: its record goes out, its counters are brought up to
// date, and its places in pool and limits are free. The carrier closes the
// sockets after it, so that who sees them closed finds the session logged and
// its place free, and then calls Left. r is room for the record; its attempts'
// memory is used again.
func (s *Session) End(o *Outcome, r *accesslog.Record, now int64) {
	s.fill(o, r, now)
	s.Moved(o.Totals)
	if s.Backend != nil {
		s.pool.Release(s.Backend, s.registry.clock.Wall(now))
	}
	s.leaveLimits()
	s.list()
	s.phase = ended
	s.Settings.Counters.Active.Add(-1)
	s.Settings.Counters.Ended(r.Datapath, o.Status)
	s.registry.record(r, s.Settings.Config.AccessLog.Wants(o.Status, r.BytesReceived))
	if s.Settings.Dispatched && s.registry.dispatch != nil && s.Client.IsValid() {
		s.registry.dispatch.Ended(s.Client, s.Server)
	}
}

// Left says that nothing of the session is left: its sockets are closed.
func (s *Session) Left() { s.registry.left() }

// fill makes r the session's record.
func (s *Session) fill(o *Outcome, r *accesslog.Record, now int64) {
	*r = accesslog.Record{
		ID:              s.ID,
		Listener:        s.Settings.Config.Name,
		Pool:            s.pool.Name(),
		Start:           s.registry.clock.Wall(s.begun),
		End:             s.registry.clock.Wall(now),
		Status:          o.Status,
		Reason:          o.Reason,
		BytesReceived:   o.Totals.FromClient,
		BytesSent:       o.Totals.ToClient,
		BytesSpliced:    o.Spliced,
		Attempts:        append(r.Attempts[:0], s.failed...),
		ClientRTT:       o.ClientRTT,
		UpstreamRTT:     o.UpstreamRTT,
		UpstreamRetrans: o.UpstreamRetrans,
		RPC:             o.RPC,
	}
	if s.named {
		r.ProxyAddr = s.Client
	}
	r.Client.AddrPort, r.Client.Unix = s.Client, !s.Client.IsValid()
	if r.Server.AddrPort = s.Server; o.ServerPath != "" { // whoever the client says it is
		r.Server.Unix, r.Server.Path = true, o.ServerPath
	}
	for _, l := range s.Legs() {
		r.Attempts = append(r.Attempts, l.attempt)
		if l.took >= 0 {
			r.Datapath = o.Datapath
		}
	}
	if s.Backend == nil {
		return
	}
	if s.took >= 0 {
		r.Datapath = o.Datapath
	}
	r.Attempts = append(r.Attempts, s.presentAttempt(o.Totals, now))
}

// presentAttempt describes the attempt under way.
func (s *Session) presentAttempt(t Totals, now int64) accesslog.Attempt {
	return describe(s.Target(), s.tried, s.took, s.First, t, now)
}

// describe is an attempt that began at tried; took < 0: it wasn't connected;
// first 0: no byte of the backend came.
func describe(to pool.Addr, tried, took, first int64, t Totals, now int64) accesslog.Attempt {
	a := accesslog.Attempt{
		Addr:          to.String(),
		BytesSent:     t.ToBackend,
		BytesReceived: t.FromBackend,
		Session:       nanoseconds(now - tried),
	}
	if took >= 0 {
		a.Connected, a.Connect = true, nanoseconds(took)
	}
	if first != 0 {
		a.GotByte, a.FirstByte = true, nanoseconds(first-tried)
	}
	return a
}

// Moved brings what moved since the last time into the counters of the listener
// and the backend. A count that has fallen adds nothing: what was in the
// kernel's hands when a peer vanished has been taken back.
func (s *Session) Moved(t Totals) {
	add := func(now, before uint64) uint64 { return max(now, before) - before }
	if s.Settings != nil {
		if n := add(t.FromClient, s.counted.FromClient); n != 0 {
			s.Settings.Counters.Received.Add(n)
		}
		if n := add(t.ToClient, s.counted.ToClient); n != 0 {
			s.Settings.Counters.Sent.Add(n)
		}
	}
	if s.Backend != nil {
		s.Backend.AddBytes(add(t.FromBackend, s.counted.FromBackend), add(t.ToBackend, s.counted.ToBackend))
	}
	s.counted = t
}
