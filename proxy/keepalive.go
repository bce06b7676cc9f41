// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"time"

	"golang.org/x/sys/unix"

	"sluice/internal/sockopt"
)

// setKeepalive is sockopt's Keepalive.
func setKeepalive(fd int32, d time.Duration) { sockopt.Keepalive(int(fd), d) }

// setUserTimeout is sockopt's UserTimeout.
func setUserTimeout(fd int32, d time.Duration) { sockopt.UserTimeout(int(fd), d) }

// gaveUp says whether an established connection failed because its peer is not
// heard of any more: what the kernel says then is the last ICMP error, if it had
// one (tcp_write_err in net/ipv4/tcp_timer.c).
func gaveUp(errno unix.Errno) bool {
	switch errno {
	case unix.ETIMEDOUT, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN, unix.ENONET:
		return true
	}
	return false
}

// watchPeers sets dead_peer on both connections. With TCP_USER_TIMEOUT set the
// kernel no longer counts keepalive's probes: it gives up at the first one that
// finds the peer silent for that long (tcp_keepalive_timer). So where both
// options are wanted it is set only while bytes may be unacknowledged, and
// keepalive, which rests meanwhile, decides about the rest.
func (s *pair) watchPeers() {
	c, l := s.Settings.Config, s.loop
	if c.DeadPeer <= 0 {
		return
	}
	for _, e := range s.ends() {
		e.timed = true
		setUserTimeout(e.fd, c.DeadPeer)
	}
	if c.Keepalive <= 0 {
		return
	}
	l.startSweep()
	l.watched++
	s.watched = true
}

// unwatch ends what watchPeers began.
func (s *pair) unwatch() {
	if s.watched {
		s.watched = false
		s.loop.watched--
	}
}

// sweepPeers looks once a second at the sessions that have both options. One
// that is late costs nothing: the kernel counts dead_peer from when the first
// unacknowledged byte was sent.
func (l *loop) sweepPeers() {
	l.sessions.each(func(s *pair) {
		if !s.watched {
			return
		}
		quiet := l.now-s.lastActive() > 2*int64(time.Second)
		for _, e := range s.ends() {
			if quiet && !e.timed {
				continue
			}
			waits := outq(e.fd) > 0
			if waits == e.timed {
				continue
			}
			e.timed = waits
			if waits {
				setUserTimeout(e.fd, s.Settings.Config.DeadPeer)
			} else {
				setUserTimeout(e.fd, 0)
			}
		}
	})
}
