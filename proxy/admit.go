// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"sluice/config"
	"sluice/session"
)

// begin makes a session of an accepted connection.
func (a *acceptor) begin(l *loop, fd int32, client netip.AddrPort) {
	s := &pair{loop: l, front: a.f, last: l.now}
	s.Begin(l.e.sessions, client, l.now)
	s.cli = end{s: s, fd: fd, handle: -1, eager: true} // TCP_NODELAY comes from the listening socket
	s.up = end{s: s, fd: -1, handle: -1}
	if a.f.addr.Path != "" {
		s.cli.halting = true
		rawSetInt(fd, unix.SOL_SOCKET, unix.SO_OOBINLINE, 1) // a unix socket has it not from the one that listens
	}
	l.sessions.add(s)
	s.obey(s.Choose(s, l.now))
}

// obey does what a verdict asks for.
func (s *pair) obey(v session.Verdict) {
	switch v {
	case session.Picked:
		s.attempt()
	case session.WantsHeader:
		s.awaitHeader()
	case session.WantsProtocol:
		s.awaitPreface()
	case session.Crowded:
		s.awaitEnds(false)
	default:
		s.finish(s.Refusal(v))
	}
}

// Follow implements session.Carrier: the front is the one that has the listen
// address now, and the client's socket is as that one's options want it.
func (s *pair) Follow() *session.Settings {
	f := s.front.serves(s.cli.fd)
	set := f.set.Load()
	if set == s.Settings || s.state >= stateConnect {
		return set // nothing new, or a retry: the settings stay
	}
	keepalive := s.front.keepalive // inherited
	if s.Settings != nil {
		keepalive = s.Settings.Config.Keepalive
	}
	s.front = f
	if f.addr.Path != "" {
		return set
	}
	if f.fixed.IsValid() {
		s.Server = f.fixed
	} else if !s.Server.IsValid() && (set.ServerAddr || set.Dispatched || set.Config.ProxySend != config.ProxyOff) {
		s.Server = localAddr(s.cli.fd)
	}
	if set.Config.Keepalive != keepalive {
		setKeepalive(s.cli.fd, set.Config.Keepalive) // an edit since then
	}
	return set
}
