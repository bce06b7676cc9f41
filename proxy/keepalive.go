// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"time"

	"golang.org/x/sys/unix"
)

// keepaliveProbes is how many probes in vain end a connection.
const keepaliveProbes = 3

// setKeepalive turns TCP keepalive on, with the first probe after d without a
// segment of the peer's and then one each tenth of it, 1 s at least; 0 turns it
// off. The kernel takes whole seconds: both are rounded up.
func setKeepalive(fd int32, d time.Duration) {
	if d <= 0 {
		rawSetInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0)
		return
	}
	secs := func(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }
	rawSetInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	rawSetInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, secs(d))
	rawSetInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, secs(d/10))
	rawSetInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepaliveProbes)
}

// setUserTimeout bounds how long the socket's bytes may go without an
// acknowledgement; 0: as long as the kernel tries.
func setUserTimeout(fd int32, d time.Duration) {
	rawSetInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int((d+time.Millisecond-1)/time.Millisecond))
}

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
