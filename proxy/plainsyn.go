// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"
	"os"
	"strings"

	"sluice/loader"
)

// plainSYN has the SYN that is about to be sent to the backend from s.port go without
// what the client's connection, which has these options, doesn't have: both legs of a
// session that is to be forwarded have to agree on them. It is undone by forgetSYN.
func (s *pair) plainSYN(o *offloading, backend netip.AddrPort, client uint8) {
	var w loader.Without
	if client&hasTimestamps == 0 {
		w |= loader.WithoutTimestamps
	}
	if client&hasECN == 0 && o.asksECN.Load() {
		w |= loader.WithoutECN
	}
	if w == 0 {
		return
	}
	if err := o.Forward.PlainSYN(s.port, backend, w); err != nil {
		s.loop.e.log.Debug().Err(err).Str("listener", s.Settings.Config.Name).Msg("a backend is dialled with more than its client has: the session will not be forwarded")
		return
	}
	s.plain = o
	o.plain.Add(1)
}

// forgetSYN is called once the connection is made, or has failed: the port's next one
// may be another client's.
func (s *pair) forgetSYN() {
	o := s.plain
	if o == nil {
		return
	}
	s.plain = nil
	o.Forward.ForgetSYN(s.port, s.Target().AddrPort)
	o.plain.Add(-1)
}

// hostAsksECN says whether connections that the host makes ask for ECN by themselves,
// as net.ipv4.tcp_ecn has it, which is IPv6's too: 2 and 5 only answer who asks. Routes
// and congestion controls may ask as well: a backend that has it tells.
func hostAsksECN() bool {
	b, err := os.ReadFile("/proc/sys/net/ipv4/tcp_ecn")
	switch strings.TrimSpace(string(b)) {
	case "0", "2", "5":
		return false
	}
	return err == nil
}
