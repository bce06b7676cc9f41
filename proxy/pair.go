// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"sluice/accesslog"
	"sluice/session"
)

// What a session is doing.
type state uint8

const (
	stateAccepted state = iota // just now
	stateHeader                // waits for the client's PROXY header
	statePreface               // waits for the client's first bytes
	stateConnect               // an attempt is under way
	stateRelay                 // bytes move, by us
	stateMoved                 // bytes move, by the session's mover
	stateEnded
)

// What sockets wait for while we move the bytes: each change, once, so that
// hardly an epoll_ctl is needed again. A client's socket is asked about room to
// write only from the first time that it has none: else each session would be
// woken once for nothing.
const (
	readEvents  = unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLRDHUP | uint32(unix.EPOLLET&0xffffffff)
	relayEvents = readEvents | unix.EPOLLOUT
)

// end is one of a session's two sockets. All counts are TCP payload.
type end struct {
	s      *pair
	fd     int32  // -1: none
	handle int32  // -1: not registered
	in     uint64 // read from this socket
	out    uint64 // written to this socket
	held   []byte // read from the other socket, not yet taken by this one
	buf    []byte // what held is a part of

	readable bool // there may be something to read
	hushed   bool // it isn't read, so that it falls silent
	halting  bool // a read may stop although more is there: at an urgent mark, or at a unix peer's descriptors
	full     bool // the socket took less than it was given
	retried  bool // a write is to be tried again soon
	rdhup    bool // the peer has sent its FIN; read until it comes
	failed   bool // its connection has an error
	eof      bool // its FIN has been read
	finished bool // our FIN has been sent to it
	broken   bool // the connection is lost
	eager    bool // TCP_NODELAY is set
	asksRoom bool // registered with EPOLLOUT
	silent   bool // broken because the kernel has given the peer up
	timed    bool // TCP_USER_TIMEOUT is set
}

// pair is a session as a loop carries it: two sockets, from accept until both are
// closed. It belongs to one loop. Its size is most of what an idle session costs.
type pair struct {
	session.Session
	loop       *loop
	next, prev *pair
	front      *Front
	cli, up    end

	dest     netip.AddrPort // where an accepted header says the client connected to; passed on in ours
	last     int64          // last byte either way, monotonic ns
	deadline int64          // 0: none
	timer    int32          // place in the loop's heap plus one; 0: not in it

	state     state
	reason    accesslog.EndReason // by whose end of stream came first
	crowded   bool                // kept out by a limit until all ends that have arrived are handled
	ending    bool                // counted as such by the loop
	hot       bool                // in the loop's list of those that used up their burst
	noMap     bool                // not to be tried for the map again
	noOffload bool                // nor for being forwarded
	measured  bool                // counted as short or long
	fdsGiven  bool                // its sockets' places among the descriptors are free already
	ports     Ports               // where port is from
	port      uint16              // our own, toward the backend; 0: the kernel's
	plain     *offloading         // that keeps our SYN plain; nil: none does
	watched   bool                // in the sweep of watchPeers
	window    window

	turns uint32     // reads that gave something
	mean  uint32     // their size, a running mean
	mover mover      // nil: the loop has moved all bytes so far
	fwd   *forwarder // nil: not registered to be forwarded

	delivery *delivery // nil: no end of stream has ended the session
	pace     *pace     // nil: no rate is to be kept
}

func (s *pair) ends() [2]*end { return [2]*end{&s.cli, &s.up} }

func (e *end) other() *end {
	if e == &e.s.cli {
		return &e.s.up
	}
	return &e.s.cli
}

// ready is the loop's call: something happened to this socket.
func (e *end) ready(l *loop, events uint32) {
	s := e.s
	if s.crowded {
		e.note(events) // as in stateConnect
		return
	}
	switch s.state {
	case stateHeader:
		s.readHeader(events)
	case statePreface:
		s.readPreface(events)
	case stateConnect:
		if e == &s.up {
			s.connectReady(events)
		} else {
			e.note(events) // epoll says it once; read when the backend is there
		}
	case stateRelay:
		e.note(events)
		s.pumpBoth()
	case stateMoved:
		s.mover.ready(e, events)
		s.noteEnding()
	}
}

func (e *end) note(events uint32) {
	if events&(unix.EPOLLIN|unix.EPOLLPRI|unix.EPOLLRDHUP|unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		e.readable = true
	}
	if events&unix.EPOLLERR != 0 {
		e.failed = true
	}
	if events&unix.EPOLLPRI != 0 {
		e.halting = true
	}
	if events&(unix.EPOLLRDHUP|unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		e.rdhup = true
	}
	if events&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		e.full = false
	}
}

// touch notes that a byte has moved.
func (s *pair) touch() {
	s.last = s.loop.now
	if s.state == stateRelay {
		s.deadline = s.due()
	}
}

// expired is the loop's call: the session's deadline has come.
func (s *pair) expired() {
	if s.crowded {
		s.awaitEnds(false)
		return
	}
	switch s.state {
	case stateHeader:
		s.finish(200, accesslog.HeaderTimeout)
	case statePreface:
		s.isPlain()
	case stateConnect:
		s.attemptFailed(unix.ETIMEDOUT)
	case stateRelay:
		s.relayExpired()
	case stateMoved:
		s.mover.expired()
	}
}

// flow is the session as /flows shows it.
func (s *pair) flow() session.Flow {
	path := s.path()
	if s.state == stateMoved {
		path = s.mover.path() // also before its first byte there
	}
	return s.Flow(s.totals(), path, s.lastActive())
}

// path is the best rung on which the session's bytes moved so far.
func (s *pair) path() session.Path {
	if s.mover != nil && s.mover.total() > 0 {
		return s.mover.path()
	}
	return session.Relay
}
