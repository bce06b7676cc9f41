// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"sluice/accesslog"
	"sluice/config"
)

// headerTimeout is nginx's default for proxy_protocol_timeout.
const headerTimeout = 30 * time.Second

// awaitHeader waits for the client's PROXY header.
func (s *pair) awaitHeader() {
	l := s.loop
	s.state = stateHeader
	h, err := l.register(s.cli.fd, readEvents, &s.cli)
	if err != nil {
		l.e.log.Error().Err(err).Msg("cannot watch a client's socket")
		s.finish(500, accesslog.Internal)
		return
	}
	s.cli.handle = h
	l.timers.set(s, l.now+int64(l.e.headerTimeout))
}

// readHeader looks at what the client has sent so far, and takes exactly the
// header out of the socket once it is there.
func (s *pair) readHeader(events uint32) {
	s.cli.note(events)
	b := s.loop.buf[:maxHeader]
	got, errno := rawRecv(s.cli.fd, b, unix.MSG_PEEK)
	for errno == unix.EINTR {
		got, errno = rawRecv(s.cli.fd, b, unix.MSG_PEEK)
	}
	switch {
	case got > 0:
	case errno == unix.EAGAIN:
		return
	case got == 0:
		s.finish(400, accesslog.BadHeader)
		return
	default:
		s.cli.silent = gaveUp(errno)
		s.cut(s.resetBy(&s.cli))
		return
	}
	src, dst, n, err := parseHeader(b[:got])
	if errors.Is(err, errShortHeader) && !s.cli.rdhup && got < len(b) {
		return
	}
	if err != nil {
		s.finish(400, accesslog.BadHeader)
		return
	}
	rawRecv(s.cli.fd, b[:n], 0)
	if src.IsValid() {
		s.Named(src)
		s.dest = dst
	}
	s.deadline = 0
	s.obey(s.Choose(s, s.loop.now))
}

// outgoingHeader tells the backend who the client is.
func (s *pair) outgoingHeader() []byte {
	dst := s.Server
	if s.dest.IsValid() {
		dst = s.dest
	}
	if s.Settings.Config.ProxySend == config.ProxyV2 {
		return appendV2(nil, s.Client, dst)
	}
	return appendV1(nil, s.Client, dst)
}
