// SPDX-License-Identifier: Apache-2.0

package proxy

import "sluice/session"

// mover moves a session's bytes while its loop doesn't. A session has at most one,
// and keeps it to its end: after leave it only tells what it has done. All calls
// are made on the session's loop.
type mover interface {
	// ready is told epoll's events for one of the session's sockets.
	ready(e *end, events uint32)
	// expired is told that the session's deadline has come.
	expired()
	// sweep looks after the session once a second, and may end it.
	sweep()
	// ending says whether one of the session's connections is lost, or both ends of
	// stream have come.
	ending() bool
	// path is what a session is on record as whose bytes it has moved.
	path() session.Path
	// total is how many bytes it has moved, both ways.
	total() uint64
	// moved is how many of them came from the client and from the backend and are
	// not in the ends' own counts: none after leave.
	moved() (up, down uint64)
	// lastActive is when it last moved a byte, monotonic ns; 0: never.
	lastActive() int64
	// stop has nothing more taken from this end: what still comes waits in its socket.
	stop(e *end)
	// arrived says whether all that was taken for this end has entered its socket, or
	// never will.
	arrived(e *end) bool
	// abort is told that the session is about to be cut: what the sockets can't tell
	// their peers it tells them.
	abort()
	// endedAt is when the session's last packet came, now if that isn't known.
	endedAt(now int64) int64
	// leave brings what it has moved into the ends' counts, and moves nothing more.
	// The sockets are closed next.
	leave()
	// closed is told that they are.
	closed()
}

// sweep has each mover look after its session once a second. Sessions whose time is
// over, or will be before the next sweep, are found here: nobody sees their last byte.
func (l *loop) sweep() {
	l.soon, l.sweeping = nil, true // all are looked at anew
	l.sessions.each(func(s *pair) {
		if s.state != stateMoved || s.fwd != nil && s.fwd.rests() {
			return
		}
		if l.judge(s) || s.delivery != nil {
			return
		}
		s.proveClient()
		s.mover.sweep()
		if s.fwd != nil {
			s.fwd.takeRest()
		}
	})
	l.sweeping = false
	l.sortSoon()
}

// startMoving counts a session in that has a mover from now on.
func (l *loop) startMoving(s *pair) {
	l.startSweep()
	l.moving++
	at, _ := s.expiry(s.lastActive())
	l.expect(s, at)
}

// lastActive is when the last byte moved, whoever moved it.
func (s *pair) lastActive() int64 {
	if s.mover == nil {
		return s.last
	}
	return max(s.last, s.mover.lastActive())
}

// moved is how many bytes from the client and from the backend the mover has moved
// that the ends' own counts don't have.
func (s *pair) moved() (up, down uint64) {
	if s.mover == nil {
		return 0, 0
	}
	return s.mover.moved()
}
