// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"

	"sluice/accesslog"
	"sluice/session"
)

// CutForbidden resets the sessions that the settings which their listener, by
// its name, has now would not let in, or not on their datapath (200, removed).
// Those that stay get no better datapath than these settings allow. Only
// listeners in now are looked at. It is done when it returns.
func (e *Engine) CutForbidden(now map[string]*session.Settings) {
	for _, l := range e.loops {
		l.call(func() {
			l.sessions.each(func(s *pair) {
				if s.Settings == nil {
					return
				}
				if set := now[s.Settings.Config.Name]; set != nil && s.forbiddenBy(set) {
					s.cut(accesslog.Removed)
				}
			})
		})
	}
}

func (s *pair) forbiddenBy(set *session.Settings) bool {
	client := s.Client.Addr()
	if s.Settings.Config.ProxyAccept && s.front.addr.Path == "" {
		client = s.peer().Addr() // rules see who sent the header
	}
	if !set.Admits(client) {
		return true
	}
	s.noMap, s.noOffload = s.noMap || !set.SpliceAllowed, s.noOffload || !set.OffloadAllowed // nor later
	if !set.OffloadAllowed {
		s.withdraw()
	}
	if s.state != stateMoved {
		return false
	}
	if s.mover.path() == session.Offload {
		return !set.OffloadAllowed
	}
	return !set.SpliceAllowed
}

// peer is who the client's connection is with, whoever a header says it is.
func (s *pair) peer() netip.AddrPort {
	if s.fwd != nil {
		return s.fwd.client.Peer
	}
	return remoteAddr(s.cli.fd)
}
