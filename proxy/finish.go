// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"math"
	"time"

	"golang.org/x/sys/unix"

	"sluice/accesslog"
	"sluice/session"
)

// finish ends the session: its record goes out, its sockets are closed (with
// RST if they were told to linger for it), and what it held is given back.
func (s *pair) finish(status int, reason accesslog.EndReason) {
	if s.state == stateEnded {
		return
	}
	if s.withdraw() {
		s.mover.abort() // what ends it is ours: its ends have gone on without us
	}
	l, at := s.loop, s.loop.now
	if s.mover != nil {
		s.mover.leave()
		if s.state == stateEnded {
			return
		}
		at = s.mover.endedAt(at)
	}
	s.state = stateEnded
	s.deadline = 0
	s.noteLength(false)
	l.timers.remove(s)
	if s.ending {
		l.ending--
	}
	s.unwatch()
	s.dropHeld(&s.cli)
	s.dropHeld(&s.up)

	l.sessions.remove(s)
	l.load.Add(-1)
	s.End(s.outcome(status, reason), &l.rec, at)
	s.closeEnd(&s.cli)
	s.closeEnd(&s.up)
	if s.mover != nil {
		s.mover.closed()
	}

	if !s.fdsGiven {
		l.e.giveFDs()
	}
	s.givePort(restAfter(reason))
	s.Left()
}

// closeEnd closes one socket and takes it off the loop.
func (s *pair) closeEnd(e *end) {
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

// totals are what the session has moved so far, by whomever.
func (s *pair) totals() session.Totals {
	up, down := s.moved()
	return session.Totals{
		FromClient: s.cli.in + up, ToClient: s.cli.out + down,
		FromBackend: s.up.in + down, ToBackend: s.up.out + up,
	}
}

// outcome is what the session's record needs of us, good until the loop's next
// one. The bytes that the kernel moved have been added to both ends' counts when
// it left the map.
func (s *pair) outcome(status int, reason accesslog.EndReason) *session.Outcome {
	o := &s.loop.outcome
	*o = session.Outcome{
		Status: status, Reason: reason, Totals: s.totals(),
		Datapath: s.path().String(), ServerPath: s.front.addr.Path, UpstreamRetrans: -1,
	}
	if s.mover != nil {
		o.Spliced = s.mover.total()
	}
	if s.Settings.TCPInfo {
		i := s.peerInfo()
		o.ClientRTT, o.UpstreamRTT, o.UpstreamRetrans = i.clientRTT, i.upstreamRTT, i.upstreamRetrans
	}
	return o
}

// peerInfo asks the kernel for round-trip times and retransmissions.
func (s *pair) peerInfo() (o peerInfo) {
	o.upstreamRetrans = -1
	if s.fwd != nil && s.fwd.letGo {
		return s.fwd.info
	}
	var ti unix.TCPInfo
	rtt := func(us uint32) time.Duration {
		if us == 0 || us == math.MaxUint32 {
			return 0
		}
		return time.Duration(us) * time.Microsecond
	}
	if s.cli.fd >= 0 && s.Client.IsValid() && tcpInfo(s.cli.fd, &ti) {
		o.clientRTT = rtt(ti.Rtt)
	}
	if s.up.fd >= 0 && s.HasBackend() && s.Backend.Addr.Unix == "" && tcpInfo(s.up.fd, &ti) {
		o.upstreamRTT = rtt(ti.Rtt)
		o.upstreamRetrans = int64(ti.Total_retrans)
	}
	return o
}

// flush brings what moved since the last time into the counters.
func (s *pair) flush() { s.Moved(s.totals()) }
