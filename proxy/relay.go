// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"time"

	"golang.org/x/sys/unix"

	"sluice/accesslog"
)

// lackRetry is when a write that found the kernel without memory is tried again.
const lackRetry = 10 * time.Millisecond

// pumpBoth moves what can be moved, each way, and acts on what it finds.
func (s *pair) pumpBoth() {
	if s.delivery == nil {
		s.pump(&s.cli, &s.up)
	}
	if s.state == stateRelay && s.delivery == nil {
		s.pump(&s.up, &s.cli)
	}
	if s.delivery != nil {
		if s.state == stateRelay {
			s.awaitDelivery()
		}
		return
	}
	// A write that met a dead socket leaves what that socket had still to
	// say: it has been read by now, or is being read.
	if s.state == stateRelay && (s.cli.broken || s.up.broken) {
		s.lost()
	}
	if s.state == stateRelay {
		if !s.considerOffload() {
			s.considerMap()
		}
	}
}

// pump moves bytes from src to dst until src has none, dst takes no more, or
// the burst is used up.
func (s *pair) pump(src, dst *end) {
	if dst.held != nil && !dst.full && !s.flushHeld(dst) {
		return
	}
	for n := 0; src.readable && !src.eof && !src.hushed && dst.held == nil; n++ {
		if n == burst {
			s.makeHot()
			return
		}
		room := s.allowed(src, bulkChunk)
		if room == 0 {
			break
		}
		if s.bulky() && !src.halting && !dst.broken {
			got, errno := s.moveBulk(src, dst, room)
			if s.state != stateRelay {
				return
			}
			if got < 0 && !pipeLack(errno) {
				s.readEnded(src, got, errno) // it has taken the socket's error
			}
			if got > 0 || got < 0 && !pipeLack(errno) {
				continue
			}
			// The end, or an urgent mark with a FIN somewhere behind it, where
			// splice(2) has nothing to give (__tcp_read_sock), or a lack of its
			// own. recv tells.
		}
		buf := s.roomFor(src)
		buf = buf[:min(len(buf), room)]
		got, errno := rawRecv(src.fd, buf, 0)
		if got > 0 {
			s.gotBytes(src, got)
			if !s.give(dst, buf[:got]) {
				return
			}
			s.mindWindow(src, got)
			if got < len(buf) && !src.rdhup && !src.halting {
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
			s.deadEnd(dst, 0)
		}
	}
}

// readEnded notes why a read gave nothing.
func (s *pair) readEnded(src *end, got int, errno unix.Errno) {
	switch {
	case got == 0:
		src.eof = true
		src.readable = false
	case errno == unix.EAGAIN:
		src.readable = false
	case errno == unix.EINTR:
	default:
		src.broken, src.silent = true, gaveUp(errno)
		src.readable = false
	}
}

func (s *pair) gotBytes(src *end, n int) {
	if src == &s.up && src.in == 0 {
		s.First = s.loop.now
	}
	src.in += uint64(n)
	if s.pace != nil {
		s.pace.take(s.way(src), n)
	}
	s.turns++
	s.mean += uint32(n)/8 - s.mean/8
	s.touch()
}

// give writes b to dst and keeps what it doesn't take. False: dst is lost.
func (s *pair) give(dst *end, b []byte) bool {
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
		if !s.mayRetry(dst, errno) {
			s.deadEnd(dst, errno)
			return false
		}
		n = 0
	}
	dst.out += uint64(n)
	if n < len(b) {
		held := s.loop.getBuffer(len(b) - n)
		s.hold(dst, held[:copy(held, b[n:])])
	}
	return true
}

// hold keeps b, from getBuffer, until dst has room.
func (s *pair) hold(dst *end, b []byte) {
	dst.held, dst.buf = b, b[:cap(b)]
	dst.full = true
	if !dst.asksRoom && s.state == stateRelay && dst.handle >= 0 {
		dst.asksRoom = true
		s.rewatch(dst)
	}
}

// mayRetry says whether a write to dst that took nothing, for errno, is to be
// tried again, and sees to it. Of room in the socket epoll tells; nobody tells
// when the kernel has memory again.
func (s *pair) mayRetry(dst *end, errno unix.Errno) bool {
	switch errno {
	case unix.EAGAIN:
		return true
	case unix.EINTR, unix.ENOBUFS, unix.ENOMEM:
		s.retrySoon(dst)
		return true
	}
	return false
}

// retrySoon has what is kept for dst written again in a moment.
func (s *pair) retrySoon(dst *end) {
	if dst.retried {
		return
	}
	dst.retried = true
	l := s.loop
	time.AfterFunc(lackRetry, func() {
		l.post(func() {
			dst.retried, dst.full = false, false
			switch s.state {
			case stateRelay:
				s.pumpBoth()
			case stateMoved:
				s.mover.ready(dst, unix.EPOLLOUT)
			}
		})
	})
}

// deadEnd notes that a write met a lost connection. What that end had still
// to say comes first, so it is read once more.
func (s *pair) deadEnd(dst *end, errno unix.Errno) {
	dst.broken = true
	dst.silent = dst.silent || gaveUp(errno)
	dst.readable = true
	dst.rdhup = true
}

// flushHeld writes what was kept for dst; false while some is left.
func (s *pair) flushHeld(dst *end) bool {
	n, errno := rawSend(dst.fd, dst.held)
	if n < 0 {
		if s.mayRetry(dst, errno) {
			dst.full = true
			return false
		}
		s.deadEnd(dst, errno)
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

func (s *pair) dropHeld(dst *end) {
	if dst.buf != nil {
		s.loop.putBuffer(dst.buf)
		dst.held, dst.buf = nil, nil
	}
}

// passFIN sends our FIN to dst: src has sent its own, and every byte before
// it has been given to dst. With both sides done the session is over. False:
// dst is lost.
func (s *pair) passFIN(src, dst *end) bool {
	dst.finished = true
	if s.reason == "" {
		s.reason = accesslog.ClientClosed
		if src == &s.up {
			s.reason = accesslog.BackendClosed
		}
	}
	if dst.eof {
		s.finish(200, s.reason)
		return true
	}
	if src == &s.cli || !s.Settings.Config.HalfClose {
		s.noteParting()
	}
	if rawShutdownWrite(dst.fd) != 0 {
		return false
	}
	if !s.Settings.Config.HalfClose {
		s.beginDelivery(src)
	}
	return true
}

// lost ends a session of which one connection broke: the other is reset, once
// what the broken one had still sent has been passed on as far as it goes.
func (s *pair) lost() {
	for _, e := range s.ends() {
		if !e.broken {
			continue
		}
		// What the broken one had still sent comes first.
		if s.fwd != nil {
			s.fwd.endQuiet() // an end that isn't read for a while is read again
		}
		for o := e.other(); s.state == stateRelay && e.readable && !e.eof && !e.hushed && !o.broken && o.held == nil; {
			s.pump(e, o)
		}
		s.cut(s.resetBy(e))
		return
	}
}

// makeHot has the session's pump go on after others had their turn.
func (s *pair) makeHot() {
	if !s.hot {
		s.hot = true
		s.loop.hot = append(s.loop.hot, s)
	}
}

// resetBy says which end's connection broke, or that its peer is dead. It
// takes the socket's error.
func (s *pair) resetBy(e *end) accesslog.EndReason {
	if e.silent || gaveUp(rawSocketError(e.fd)) {
		return accesslog.DeadPeer
	}
	if e == &s.cli {
		return accesslog.ClientReset
	}
	return accesslog.BackendReset
}

// cut resets both sides at once.
func (s *pair) cut(reason accesslog.EndReason) {
	s.withdraw()
	if s.mover != nil {
		s.mover.abort()
	}
	for _, e := range s.ends() {
		if e.fd >= 0 {
			lingerReset(e.fd)
		}
	}
	s.finish(200, reason)
}

func (l *loop) resetAll(reason accesslog.EndReason) {
	l.sessions.each(func(s *pair) { s.cut(reason) })
}
