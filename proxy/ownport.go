// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"sluice/accesslog"
)

// portTries is how many ports of our own are tried for one dial, before the kernel
// chooses one: sessions from those stay on the lower datapaths.
const portTries = 4

// dial starts connecting; 0 if that is under way (or done).
func (s *pair) dial() unix.Errno {
	for try := 0; ; try++ {
		errno := s.dialOnce(try < portTries)
		if s.port == 0 || errno != unix.EADDRNOTAVAIL && errno != unix.EADDRINUSE {
			return errno
		}
		// The backend, or our own kernel, still remembers a connection from it.
		s.givePort(portRest)
		s.closeEnd(&s.up)
	}
}

// bindPort binds the socket that is about to be connected to one of our own ports,
// if the session may be forwarded.
func (s *pair) bindPort(fd int32, backend netip.AddrPort) {
	o := s.loop.e.offload.Load()
	if o == nil || !s.Settings.OffloadAllowed || !backend.IsValid() || s.front.addr.Path != "" {
		return
	}
	segment, options, ok := agreedOn(s.cli.fd)
	if !ok {
		return // the session is about to end
	}
	fitSegments(fd, segment)
	if !s.front.ports.own() && !o.fault.everyPort {
		return
	}
	for range portTries {
		port, ok := o.Ports.Take(backend)
		if !ok {
			return
		}
		from := netip.IPv4Unspecified()
		if backend.Addr().Is6() {
			from = netip.IPv6Unspecified()
		}
		var sa sockaddr
		sa.setIP(netip.AddrPortFrom(from, port))
		rawSetInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) // beside those in TIME_WAIT, and toward other backends
		if rawBind(fd, &sa) == 0 {
			s.port, s.ports = port, o.Ports
			s.plainSYN(o, backend, options)
			return
		}
		o.Ports.Give(backend, port, portRest) // a socket of the host has it
	}
}

// givePort gives the port of a socket that is closed back; one of a forwarded
// session is its record's.
func (s *pair) givePort(rest time.Duration) {
	if s.port == 0 || s.fwd != nil {
		return
	}
	s.forgetSYN()
	s.ports.Give(s.Target().AddrPort, s.port, rest)
	s.port, s.ports = 0, nil
}

// restAfter is for how long the port of a session that wasn't forwarded rests. Where the
// client's end of stream came first ours is the end that stays in TIME_WAIT, and the
// kernel refuses to connect from the port to that backend.
func restAfter(reason accesslog.EndReason) time.Duration {
	if reason == accesslog.ClientClosed {
		return portRest
	}
	return 0
}
