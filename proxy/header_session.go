// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"sluice/config"
	"sluice/stats"
)

// headerTimeout is nginx's default for proxy_protocol_timeout.
const headerTimeout = 30 * time.Second

// awaitHeader waits for the client's PROXY header.
func (s *session) awaitHeader() {
	l := s.loop
	s.state = stateHeader
	h, err := l.register(s.cli.fd, readEvents, &s.cli)
	if err != nil {
		l.e.log.Error().Err(err).Msg("cannot watch a client's socket")
		s.finish(500, stats.Internal)
		return
	}
	s.cli.handle = h
	l.timers.set(s, l.now+int64(headerTimeout))
}

// readHeader looks at what the client has sent so far, and takes exactly the
// header out of the socket once it is there.
func (s *session) readHeader(events uint32) {
	s.cli.note(events)
	b := s.loop.buf[:maxHeader]
	got, errno := rawRecv(s.cli.fd, b, unix.MSG_PEEK)
	switch {
	case got > 0:
	case errno == unix.EAGAIN || errno == unix.EINTR:
		return
	case got == 0:
		s.finish(400, stats.BadHeader)
		return
	default:
		lingerReset(s.cli.fd)
		s.finish(200, stats.ClientReset)
		return
	}
	src, dst, n, err := parseHeader(b[:got])
	if errors.Is(err, errShortHeader) && !s.cli.rdhup && got < len(b) {
		return
	}
	if err != nil {
		s.finish(400, stats.BadHeader)
		return
	}
	rawRecv(s.cli.fd, b[:n], 0)
	if src.IsValid() {
		s.told = true
		s.client = src
		if dst.IsValid() && s.set.Config.ProxySend != config.ProxyOff {
			s.dest = dst
		}
	}
	s.deadline = 0
	s.loop.e.gen.RLock()
	s.enter()
}

// outgoingHeader tells the backend who the client is.
func (s *session) outgoingHeader() []byte {
	dst := s.server
	if s.dest.IsValid() {
		dst = s.dest
	}
	if s.set.Config.ProxySend == config.ProxyV2 {
		return appendV2(nil, s.client, dst)
	}
	return appendV1(nil, s.client, dst)
}
