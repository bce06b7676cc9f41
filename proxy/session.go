// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"sluice/pool"
	"sluice/stats"
)

// What a session is doing.
type state uint8

const (
	stateHeader  state = iota // waits for the client's PROXY header
	stateConnect              // an attempt is under way
	stateRelay                // bytes move, by us
	stateSplice               // bytes move, in the kernel
	stateEnded
)

// What sockets wait for while we move the bytes: each change, once, so that
// hardly an epoll_ctl is needed again. A client's socket is asked about room to
// write only from the first time that it has none: else each session would be
// woken once for nothing.
const (
	readEvents  = unix.EPOLLIN | unix.EPOLLRDHUP | uint32(unix.EPOLLET&0xffffffff)
	relayEvents = readEvents | unix.EPOLLOUT
)

// end is one of a session's two sockets. All counts are TCP payload.
type end struct {
	s      *session
	fd     int32  // -1: none
	handle int32  // -1: not registered
	in     uint64 // read from this socket
	out    uint64 // written to this socket
	held   []byte // read from the other socket, not yet taken by this one
	buf    []byte // what held is a part of

	readable bool // there may be something to read
	full     bool // the socket took less than it was given
	rdhup    bool // the peer has sent its FIN; read until it comes
	eof      bool // its FIN has been read
	finished bool // our FIN has been sent to it
	broken   bool // the connection is lost
	eager    bool // TCP_NODELAY is set
	asksRoom bool // registered with EPOLLOUT
}

// session is one client connection, from accept until both sides are closed.
// It belongs to one loop. Its size is most of what an idle session costs.
type session struct {
	loop       *loop
	next, prev *session
	front      *Front
	set        *Settings
	cli, up    end

	client netip.AddrPort // the TCP peer, or what its PROXY header said
	server netip.AddrPort // the local end; zero if not needed or unix
	dest   netip.AddrPort // where an accepted header says the client connected to; passed on in ours
	begun  int64          // accept, monotonic ns
	last   int64          // last byte either way, monotonic ns

	id       uint64
	backend  *pool.Backend
	picks    pool.State
	attempts []stats.Attempt // those that failed
	tried    int64           // start of the present attempt
	took     int64           // its connect time, ns; -1 until connected
	first    int64           // time of the backend's first byte; 0: none yet
	deadline int64           // 0: none
	timer    int32           // place in the loop's heap plus one; 0: not in it
	tries    int32

	state   state
	reason  stats.EndReason
	hot     bool // in the loop's list of those that used up their burst
	limited bool // counted by the listener's limits
	told    bool // client is what a PROXY header said
	noMap   bool // not to be tried for the map again

	turns uint32 // reads that gave something
	mean  uint32 // their size, a running mean
	kern  *kernelPart

	flushed [2]struct{ in, out uint64 } // what counters have got so far: client, backend
}

func (s *session) ends() [2]*end { return [2]*end{&s.cli, &s.up} }

func (e *end) other() *end {
	if e == &e.s.cli {
		return &e.s.up
	}
	return &e.s.cli
}

// ready is the loop's call: something happened to this socket.
func (e *end) ready(l *loop, events uint32) {
	s := e.s
	switch s.state {
	case stateHeader:
		s.readHeader(events)
	case stateConnect:
		if e == &s.up {
			s.connectReady(events)
		}
	case stateRelay:
		e.note(events)
		s.pumpBoth()
	case stateSplice:
		s.spliceReady(e, events)
	}
}

func (e *end) note(events uint32) {
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		e.readable = true
	}
	if events&(unix.EPOLLRDHUP|unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		e.rdhup = true
	}
	if events&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		e.full = false
	}
}

// touch notes that a byte has moved.
func (s *session) touch() {
	s.last = s.loop.now
	if s.set.Config.IdleTimeout > 0 && s.state == stateRelay {
		s.deadline = s.last + int64(s.set.Config.IdleTimeout)
	}
}

// expired is the loop's call: the session's deadline has come.
func (s *session) expired() {
	switch s.state {
	case stateHeader:
		s.finish(200, stats.HeaderTimeout)
	case stateConnect:
		s.attemptFailed(unix.ETIMEDOUT)
	case stateRelay:
		s.finish(200, stats.IdleTimeout)
	case stateSplice:
		s.spliceExpired()
	}
}

// describe is the session as /flows shows it.
func (s *session) describe() stats.Flow {
	f := stats.Flow{
		ID:            s.id,
		Listener:      s.set.Config.Name,
		Pool:          s.set.Pool.Name(),
		Client:        "unix:",
		Datapath:      s.datapath(),
		AgeSeconds:    time.Duration(s.loop.now - s.begun).Seconds(),
		BytesReceived: s.cli.in + s.kernelBytes(&s.cli),
		BytesSent:     s.cli.out + s.kernelBytes(&s.up),
	}
	if s.client.IsValid() {
		f.Client = s.client.String()
	}
	if s.backend != nil {
		f.Backend = s.backend.Addr.String()
	}
	f.IdleSeconds = max(0, time.Duration(s.loop.now-s.lastActive()).Seconds())
	return f
}

// datapath is the best rung on which the session's bytes moved so far.
func (s *session) datapath() string {
	switch {
	case s.took < 0 || s.backend == nil:
		return "-"
	case s.kern != nil && s.kern.spliced+s.kernelBytes(&s.cli)+s.kernelBytes(&s.up) > 0:
		return "splice"
	}
	return "relay"
}
