// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"golang.org/x/sys/unix"

	"sluice/stats"
)

// pumpBoth moves what can be moved, each way, and acts on what it finds.
func (s *session) pumpBoth() {
	s.pump(&s.cli, &s.up)
	if s.state == stateRelay {
		s.pump(&s.up, &s.cli)
	}
	// A write that met a dead socket leaves what that socket had still to
	// say: it has been read by now, or is being read.
	if s.state == stateRelay && (s.cli.broken || s.up.broken) {
		s.lost()
	}
	if s.state == stateRelay {
		s.considerMap()
	}
}

// pump moves bytes from src to dst until src has none, dst takes no more, or
// the burst is used up.
func (s *session) pump(src, dst *end) {
	if dst.held != nil && !dst.full && !s.flushHeld(dst) {
		return
	}
	buf := s.loop.buf
	for n := 0; src.readable && !src.eof && dst.held == nil; n++ {
		if n == burst {
			s.makeHot()
			return
		}
		if s.bulky() && !dst.broken {
			if got, errno := s.moveBulk(src, dst); got <= 0 {
				s.readEnded(src, got, errno)
			}
			continue
		}
		got, errno := rawRecv(src.fd, buf, 0)
		if got > 0 {
			s.gotBytes(src, got)
			if !s.give(dst, buf[:got]) {
				return
			}
			if got < len(buf) && !src.rdhup {
				src.readable = false
			}
			continue
		}
		s.readEnded(src, got, errno)
	}
	// After a failed write the end that is read is no FIN: the error that
	// said so has been taken by the write.
	if src.eof && !src.broken && dst.held == nil && !dst.finished && !dst.broken {
		if !s.passFIN(src, dst) {
			s.deadEnd(dst)
		}
	}
}

// readEnded notes why a read gave nothing.
func (s *session) readEnded(src *end, got int, errno unix.Errno) {
	switch {
	case got == 0:
		src.eof = true
		src.readable = false
	case errno == unix.EAGAIN:
		src.readable = false
	case errno == unix.EINTR:
	default:
		src.broken = true
		src.readable = false
	}
}

func (s *session) gotBytes(src *end, n int) {
	if src == &s.up && src.in == 0 {
		s.first = s.loop.now
	}
	src.in += uint64(n)
	s.turns++
	s.mean += uint32(n)/8 - s.mean/8
	s.touch()
}

// give writes b to dst and keeps what it doesn't take. False: dst is lost.
func (s *session) give(dst *end, b []byte) bool {
	if dst.broken {
		return true // counted as received, and gone, as with any proxy
	}
	if !dst.eager && dst.out > 0 {
		// Nagle matters from the second write on: a first one has nothing in
		// flight to wait for. A session of one request saves the call.
		dst.eager = true
		rawSetInt(dst.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	n, errno := rawSend(dst.fd, b)
	if n < 0 {
		switch errno {
		case unix.EAGAIN, unix.EINTR:
			n = 0
		case unix.ENOBUFS, unix.ENOMEM:
			n = 0
		default:
			s.deadEnd(dst)
			return false
		}
	}
	dst.out += uint64(n)
	if n < len(b) {
		held := s.loop.getBuffer(len(b) - n)
		s.hold(dst, held[:copy(held, b[n:])])
	}
	return true
}

// hold keeps b, from getBuffer, until dst has room.
func (s *session) hold(dst *end, b []byte) {
	dst.held, dst.buf = b, b[:cap(b)]
	dst.full = true
	if !dst.asksRoom && s.state == stateRelay && dst.handle >= 0 {
		dst.asksRoom = true
		s.loop.modify(dst.fd, dst.handle, relayEvents)
	}
}

// deadEnd notes that a write met a lost connection. What that end had still
// to say comes first, so it is read once more.
func (s *session) deadEnd(dst *end) {
	dst.broken = true
	dst.readable = true
	dst.rdhup = true
}

// flushHeld writes what was kept for dst; false while some is left.
func (s *session) flushHeld(dst *end) bool {
	n, errno := rawSend(dst.fd, dst.held)
	if n < 0 {
		switch errno {
		case unix.EAGAIN, unix.EINTR, unix.ENOBUFS, unix.ENOMEM:
			dst.full = true
			return false
		}
		s.deadEnd(dst)
		s.dropHeld(dst)
		return false
	}
	if n > 0 {
		s.touch()
	}
	dst.out += uint64(n)
	dst.held = dst.held[n:]
	if len(dst.held) > 0 {
		dst.full = true
		return false
	}
	s.dropHeld(dst)
	return true
}

func (s *session) dropHeld(dst *end) {
	if dst.buf != nil {
		s.loop.putBuffer(dst.buf)
		dst.held, dst.buf = nil, nil
	}
}

// passFIN sends our FIN to dst: src has sent its own, and every byte before
// it has been given to dst. With both sides done the session is over. False:
// dst is lost.
func (s *session) passFIN(src, dst *end) bool {
	dst.finished = true
	if s.reason == "" {
		s.reason = stats.ClientClosed
		if src == &s.up {
			s.reason = stats.BackendClosed
		}
	}
	if dst.eof {
		s.finish(200, s.reason)
		return true
	}
	return rawShutdownWrite(dst.fd) == 0
}

// lost ends a session of which one connection broke: the other is reset, once
// what the broken one had still sent has been passed on as far as it goes.
func (s *session) lost() {
	for _, e := range s.ends() {
		if !e.broken {
			continue
		}
		// What the broken one had still sent comes first.
		for o := e.other(); e.readable && !e.eof && !o.broken && o.held == nil; {
			s.pump(e, o)
		}
		s.cut(s.resetBy(e))
		return
	}
}

// makeHot has the session's pump go on after others had their turn.
func (s *session) makeHot() {
	if !s.hot {
		s.hot = true
		s.loop.hot = append(s.loop.hot, s)
	}
}

// resetBy names the end whose connection broke.
func (s *session) resetBy(e *end) stats.EndReason {
	if e == &s.cli {
		return stats.ClientReset
	}
	return stats.BackendReset
}

// cut resets both sides at once.
func (s *session) cut(reason stats.EndReason) {
	for _, e := range s.ends() {
		if e.fd >= 0 {
			lingerReset(e.fd)
		}
	}
	s.finish(200, reason)
}

func (l *loop) resetAll(reason stats.EndReason) {
	l.sessions.each(func(s *session) { s.cut(reason) })
}
