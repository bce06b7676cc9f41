// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"

	"golang.org/x/sys/unix"

	"sluice/accesslog"
	"sluice/session"
)

// attempt dials the backend that was picked, and the next ones for as long as
// that fails at once.
func (s *pair) attempt() {
	for s.state = stateConnect; ; {
		errno := s.dial()
		if errno == 0 {
			return
		}
		if v := s.another(errno); v != session.Picked {
			s.obey(v)
			return
		}
	}
}

// dialOnce starts connecting; 0 if that is under way (or done). own: from a port of
// our own, if the session may need one.
func (s *pair) dialOnce(own bool) unix.Errno {
	var sa sockaddr
	if s.Backend.Addr.Portless() && !s.Server.IsValid() {
		s.Server = localAddr(s.cli.fd)
	}
	addr := s.Target()
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
	rawSetInt(fd, unix.SOL_SOCKET, unix.SO_OOBINLINE, 1) // urgent bytes stay in their place
	if family == unix.AF_UNIX {
		s.up.eager = true // it has no Nagle to turn off
		s.up.halting = true
	}
	if d := s.Settings.Config.Keepalive; d > 0 && family != unix.AF_UNIX {
		setKeepalive(fd, d)
	}
	if own {
		s.bindPort(fd, addr.AddrPort)
	}
	errno = rawConnect(fd, &sa)
	if errno != 0 && errno != unix.EINPROGRESS {
		return errno
	}
	// Registered after connect(2): an unconnected socket reports a hang-up.
	h, err := s.loop.register(fd, relayEvents, &s.up)
	if errors.Is(err, unix.ENOSPC) {
		return unix.ENOSPC
	} else if err != nil {
		return unix.ENOMEM
	}
	s.up.handle = h
	s.up.asksRoom = true
	s.loop.timers.set(s, s.loop.now+int64(s.Settings.Config.ConnectTimeout))
	return 0
}

// connectReady is told what epoll says of the socket that is being connected.
func (s *pair) connectReady(events uint32) {
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

func (s *pair) attemptFailed(errno unix.Errno) {
	s.obey(s.another(errno))
}

// another puts a failed attempt behind and picks again.
func (s *pair) another(errno unix.Errno) session.Verdict {
	e := s.loop.e
	c := s.Settings.Config
	e.log.Debug().Str("listener", c.Name).Str("backend", s.Target().String()).Str("error", errno.Error()).Msg("connect failed")
	whose := session.FaultOf(errno)
	if whose != session.BackendFault {
		e.tellLack(s.loop.now, c.Name, s.Target().String(), errno)
	}
	moved := s.totals()
	s.closeEnd(&s.up)
	s.givePort(0)
	s.up = end{s: s, fd: -1, handle: -1}
	return s.Failed(s, whose, errno.Error(), moved, s.loop.now)
}

// connected starts the relay.
func (s *pair) connected(events uint32) {
	l := s.loop
	c := s.Settings.Config
	s.Reached(l.now)
	s.forgetSYN()
	s.state, s.last = stateRelay, l.now
	s.deadline = 0
	if at := s.due(); at > 0 {
		l.timers.set(s, at)
	}
	s.up.note(events)
	s.watchPeers()
	s.pace = newPace(c)
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
	s.cli.asksRoom = s.cli.full
	h, err := l.register(s.cli.fd, s.watch(&s.cli), &s.cli)
	if err != nil {
		l.e.log.Error().Err(err).Msg("cannot watch a client's socket")
		s.finish(500, accesslog.Internal)
		return
	}
	s.cli.handle = h
}
