// SPDX-License-Identifier: Apache-2.0

package service

import (
	"sluice/config"
	"sluice/grpc"
	"sluice/proxy"
	"sluice/session"
)

// takeCalls hands a connection that carries calls to who carries them.
func (s *Service) takeCalls(c *proxy.Connection) {
	s.calls.Take(&grpc.Conn{Origin: c, Admission: c.Admission, FD: c.FD, Server: c.Server, Path: c.Path, Peer: c.Peer})
}

// callsOf is what the calls of l go by; nil: it balances connections. Under s.mu,
// with the pools in force.
func (s *Service) callsOf(c *config.Config, l *config.Listener) *session.Calls {
	if l.GRPC == nil {
		return nil
	}
	calls := &session.Calls{Drain: c.DrainTimeout}
	for _, r := range l.GRPC.Routes {
		calls.Routes = append(calls.Routes, s.pools[r.Pool].pool)
	}
	return calls
}
