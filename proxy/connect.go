// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"time"

	"golang.org/x/sys/unix"

	"sluice/stats"
)

// attempt dials the backend that was picked.
func (s *session) attempt() {
	for {
		if s.backend == nil {
			s.attempts = append(s.attempts, stats.Attempt{Addr: s.set.Pool.Name()})
			s.finish(502, stats.NoBackend)
			return
		}
		s.tried = s.loop.now
		s.took = -1
		errno := s.dial()
		if errno == 0 {
			return
		}
		if !s.another(errno) {
			return
		}
	}
}

// dial starts connecting; 0 if that is under way (or done).
func (s *session) dial() unix.Errno {
	var sa sockaddr
	addr := s.backend.Addr
	family := unix.AF_INET
	switch {
	case addr.Unix != "":
		family = unix.AF_UNIX
		sa.setUnix(addr.Unix)
	case addr.AddrPort.IsValid():
		sa.setIP(addr.AddrPort)
		if addr.AddrPort.Addr().Is6() {
			family = unix.AF_INET6
		}
	default:
		return unix.EHOSTUNREACH // a name without an address; the pool holds it as down
	}
	fd, errno := rawSocket(family)
	if errno != 0 {
		return errno
	}
	s.up = end{s: s, fd: fd, handle: -1}
	s.up.eager = family == unix.AF_UNIX // it has no Nagle to turn off
	if d := s.set.Config.Keepalive; d > 0 && family != unix.AF_UNIX {
		setKeepalive(fd, d)
	}
	errno = rawConnect(fd, &sa)
	if errno != 0 && errno != unix.EINPROGRESS {
		return errno
	}
	// Registered after connect(2): an unconnected socket reports a hang-up.
	h, err := s.loop.register(fd, relayEvents, &s.up)
	if err != nil {
		return unix.ENOMEM
	}
	s.up.handle = h
	s.up.asksRoom = true
	s.loop.timers.set(s, s.loop.now+int64(s.set.Config.ConnectTimeout))
	return 0
}

// connectReady is told what epoll says of the socket that is being connected.
func (s *session) connectReady(events uint32) {
	if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		errno := rawSocketError(s.up.fd)
		if errno == 0 && events&unix.EPOLLERR == 0 && events&unix.EPOLLIN != 0 {
			s.connected(events) // connected, spoke and left before we looked
			return
		}
		if errno == 0 {
			errno = unix.ECONNREFUSED
		}
		s.attemptFailed(errno)
		return
	}
	if events&unix.EPOLLOUT != 0 {
		s.connected(events)
	}
}

// ownFault tells a lack of ours from a failure of the backend's.
func ownFault(e unix.Errno) bool {
	switch e {
	case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.EADDRNOTAVAIL, unix.EAFNOSUPPORT:
		return true
	}
	return false
}

func (s *session) attemptFailed(errno unix.Errno) {
	if s.another(errno) {
		s.attempt()
	}
}

// another puts a failed attempt behind and picks again; false: the session has
// ended.
func (s *session) another(errno unix.Errno) bool {
	e := s.loop.e
	c := s.set.Config
	own := ownFault(errno)
	e.log.Debug().Str("listener", c.Name).Str("backend", s.backend.Addr.String()).Str("error", errno.Error()).Msg("connect failed")
	s.attempts = append(s.attempts, s.presentAttempt())
	now := e.wall(s.loop.now)
	if own {
		s.set.Pool.Release(s.backend, now)
	} else {
		s.set.Pool.Failed(s.backend, now)
	}
	s.backend = nil
	s.closeEnd(&s.up)
	s.up = end{s: s, fd: -1, handle: -1}
	if own {
		s.finish(500, stats.Internal)
		return false
	}
	s.tries--
	if s.tries <= 0 || (c.TryTimeout > 0 && s.loop.now-s.begun >= int64(c.TryTimeout)) {
		s.finish(502, stats.ConnectFailed)
		return false
	}
	e.gen.RLock()
	s.backend = s.set.Pool.Pick(&s.picks, now)
	e.gen.RUnlock()
	return true
}

// connected starts the relay.
func (s *session) connected(events uint32) {
	l := s.loop
	c := s.set.Config
	s.took = max(0, l.now-s.tried)
	s.set.Pool.Connected(s.backend, time.Duration(s.took), l.e.wall(l.now))
	s.state = stateRelay
	s.deadline = 0
	if c.IdleTimeout > 0 {
		s.last = l.now
		l.timers.set(s, l.now+int64(c.IdleTimeout))
	}
	s.up.note(events)
	if c.ProxySend != "off" {
		if h := s.outgoingHeader(); !s.give(&s.up, h) {
			s.lost()
			return
		}
	}
	// Most clients have spoken by now: look before asking to be told, so that
	// a short session is woken once less.
	s.cli.readable = true
	s.pumpBoth()
	if s.state != stateRelay || s.cli.handle >= 0 {
		return
	}
	watch := uint32(readEvents)
	if s.cli.full {
		watch, s.cli.asksRoom = relayEvents, true
	}
	h, err := l.register(s.cli.fd, watch, &s.cli)
	if err != nil {
		l.e.log.Error().Err(err).Msg("cannot watch a client's socket")
		s.finish(500, stats.Internal)
		return
	}
	s.cli.handle = h
}
