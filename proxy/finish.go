// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"math"
	"time"

	"golang.org/x/sys/unix"

	"sluice/stats"
)

// finish ends the session: its record goes out, its sockets are closed (with
// RST if they were told to linger for it), and what it held is given back.
func (s *session) finish(status int, reason stats.EndReason) {
	if s.state == stateEnded {
		return
	}
	l, e := s.loop, s.loop.e
	s.leaveMap()
	s.state = stateEnded
	s.reason = reason
	s.deadline = 0
	l.timers.remove(s)
	s.dropHeld(&s.cli)
	s.dropHeld(&s.up)

	// The line, and the place in pool and limits, before the sockets: who sees
	// the end of a session finds it logged and its place free.
	rec := s.recordOf(status)
	s.flush()
	if s.backend != nil {
		s.set.Pool.Release(s.backend, e.wall(l.now))
	}
	if s.limited {
		s.set.Limits.leave(s.client.Addr())
	}
	l.sessions.remove(s)
	l.load.Add(-1)
	s.set.Counters.Active.Add(-1)
	s.set.Counters.Ended(rec.Datapath, status)
	e.record(rec, s.set.Config.AccessLog)
	if s.set.Dispatched && e.disp != nil && s.client.IsValid() {
		e.disp.Ended(s.client, s.server)
	}
	s.closeEnd(&s.cli)
	s.closeEnd(&s.up)

	e.giveFDs()
	if e.live.Add(-1) == 0 {
		e.tellIdle()
	}
}

// closeEnd closes one socket and takes it off the loop.
func (s *session) closeEnd(e *end) {
	if e.fd < 0 {
		return
	}
	if e.handle >= 0 {
		s.loop.forget(e.handle)
		e.handle = -1
	}
	rawClose(e.fd)
	e.fd = -1
}

// presentAttempt describes the attempt under way.
func (s *session) presentAttempt() stats.Attempt {
	now := s.loop.now
	a := stats.Attempt{
		Addr:          s.backend.Addr.String(),
		BytesSent:     s.up.out,
		BytesReceived: s.up.in,
		Session:       time.Duration(max(0, now-s.tried)),
	}
	if s.took >= 0 {
		a.Connected = true
		a.Connect = time.Duration(s.took)
	}
	if s.first != 0 {
		a.GotByte = true
		a.FirstByte = time.Duration(max(0, s.first-s.tried))
	}
	return a
}

// recordOf is the session's record, good until the loop's next one. The bytes that the kernel moved have been
// added to both ends' counts when it left the map.
func (s *session) recordOf(status int) *stats.Session {
	e := s.loop.e
	r := &s.loop.rec
	*r = stats.Session{
		ID:              s.id,
		Listener:        s.set.Config.Name,
		Pool:            s.set.Pool.Name(),
		Start:           e.wall(s.begun),
		Status:          status,
		Reason:          s.reason,
		BytesReceived:   s.cli.in,
		BytesSent:       s.cli.out,
		Attempts:        append(r.Attempts[:0], s.attempts...),
		UpstreamRetrans: -1,
	}
	s.addresses(r)
	if s.kern != nil {
		r.BytesSpliced = s.kern.spliced
	}
	if s.backend != nil {
		if s.took >= 0 {
			r.Datapath = "relay"
			if r.BytesSpliced > 0 {
				r.Datapath = "splice"
			}
		}
		r.Attempts = append(r.Attempts, s.presentAttempt())
	}
	if s.set.TCPInfo {
		s.measure(r)
	}
	return r
}

func (s *session) addresses(r *stats.Session) {
	if s.told {
		r.ProxyAddr = s.client
	}
	if s.client.IsValid() {
		r.Client.AddrPort = s.client
		r.Server.AddrPort = s.server
		return
	}
	r.Client.Unix, r.Server.Unix = true, true
	r.Server.Path = s.front.addr.Path
}

// measure asks the kernel for round-trip times and retransmissions.
func (s *session) measure(r *stats.Session) {
	var ti unix.TCPInfo
	rtt := func(us uint32) time.Duration {
		if us == 0 || us == math.MaxUint32 {
			return 0
		}
		return time.Duration(us) * time.Microsecond
	}
	if s.cli.fd >= 0 && s.client.IsValid() && tcpInfo(s.cli.fd, &ti) {
		r.ClientRTT = rtt(ti.Rtt)
	}
	if s.up.fd >= 0 && s.backend != nil && s.backend.Addr.Unix == "" && s.took >= 0 && tcpInfo(s.up.fd, &ti) {
		r.UpstreamRTT = rtt(ti.Rtt)
		r.UpstreamRetrans = int64(ti.Total_retrans)
	}
}

// flush brings what moved since the last time into the counters of the
// listener and the backend.
func (s *session) flush() {
	now := [2]struct{ in, out uint64 }{
		{s.cli.in + s.kernelBytes(&s.cli), s.cli.out + s.kernelBytes(&s.up)},
		{s.up.in + s.kernelBytes(&s.up), s.up.out + s.kernelBytes(&s.cli)},
	}
	add := func(i int) (in, out uint64) {
		in, out = now[i].in-s.flushed[i].in, now[i].out-s.flushed[i].out
		if now[i].in < s.flushed[i].in {
			in = 0
		}
		if now[i].out < s.flushed[i].out {
			out = 0 // what was in the kernel's hands when the peer vanished has been taken back
		}
		return in, out
	}
	if in, out := add(0); in|out != 0 {
		s.set.Counters.Received.Add(in)
		s.set.Counters.Sent.Add(out)
	}
	if s.backend != nil {
		if in, out := add(1); in|out != 0 {
			s.backend.AddBytes(in, out)
		}
	}
	s.flushed = now
}
