// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"sluice/accesslog"
	"sluice/session"
)

// preface is how a client begins that speaks HTTP/2 (RFC 9113, 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// prefaceTime is how long a client of a listener for calls may be silent: who
// says nothing waits for its server to speak first, which HTTP/2 doesn't.
const prefaceTime = 3 * time.Second

// Connection is a client's connection that an engine has accepted and let in,
// and that speaks HTTP/2: the preface is the first that is read from it.
type Connection struct {
	*session.Admission
	// FD is its socket, non-blocking. It belongs to who takes the connection.
	FD int
	// Server is the local end; zero if the front is a unix socket.
	Server netip.AddrPort
	// Peer is the other end, whoever a header says it is; zero over a unix socket.
	Peer netip.Addr
	// Path is the front's, if that is a unix socket.
	Path string
	// Front is where it came in.
	Front *Front

	engine *Engine
}

// Closed is to be called once FD is closed: the connection is over.
func (c *Connection) Closed() {
	c.engine.giveFDs()
	c.Leave()
}

// Settings are those that the connection's listen address has now. To be called
// as session.Carrier's Follow.
func (c *Connection) Settings() *session.Settings { return c.Front.servesAddr(c.Server).set.Load() }

// Served says whether the connection's listen address still is one: it has not
// been closed, or has passed to another front.
func (c *Connection) Served() bool { return c.Front.servesAddr(c.Server).serving() }

// TakeDescriptor reserves a descriptor of those that sessions may have; false:
// there is none to spare. GiveDescriptor gives it back.
func (e *Engine) TakeDescriptor() bool { return e.takeFDs() }

// GiveDescriptor gives back what TakeDescriptor has reserved.
func (e *Engine) GiveDescriptor() { e.giveFDs() }

// awaitPreface waits for the first bytes of a client, which say what it speaks.
func (s *pair) awaitPreface() {
	l := s.loop
	s.state = statePreface
	if s.cli.handle < 0 {
		h, err := l.register(s.cli.fd, readEvents, &s.cli)
		if err != nil {
			l.e.log.Error().Err(err).Msg("cannot watch a client's socket")
			s.finish(500, accesslog.Internal)
			return
		}
		s.cli.handle = h
	}
	l.timers.set(s, l.now+int64(prefaceTime))
	s.readPreface(0)
}

// readPreface looks at what the client has sent so far and takes nothing of it.
func (s *pair) readPreface(events uint32) {
	s.cli.note(events)
	l := s.loop
	b := l.buf[:len(preface)]
	got, errno := rawRecv(s.cli.fd, b, unix.MSG_PEEK)
	for errno == unix.EINTR {
		got, errno = rawRecv(s.cli.fd, b, unix.MSG_PEEK)
	}
	switch {
	case errno == unix.EAGAIN:
		return
	case errno != 0:
		s.cli.silent = gaveUp(errno)
		s.cut(s.resetBy(&s.cli))
	case string(b[:got]) == preface:
		s.handOver()
	case string(b[:got]) != preface[:got] || got == 0 || s.cli.rdhup:
		s.isPlain()
	default:
		l.timers.set(s, l.now+int64(prefaceTime)) // slowly, but it comes
	}
}

// isPlain has the session go on as one of a TCP listener.
func (s *pair) isPlain() {
	s.deadline = 0
	s.Plain()
	s.obey(s.Choose(s, s.loop.now))
}

// handOver gives the connection to who carries calls.
func (s *pair) handOver() {
	l, e := s.loop, s.loop.e
	if e.calls == nil {
		s.isPlain()
		return
	}
	c := &Connection{FD: int(s.cli.fd), Server: s.Server, Path: s.front.addr.Path, Front: s.front, engine: e}
	if c.Path == "" {
		c.Peer = remoteAddr(s.cli.fd).Addr()
		if !c.Server.IsValid() {
			c.Server = localAddr(s.cli.fd)
		}
	}
	l.deregister(s.cli.fd, s.cli.handle)
	s.cli.fd, s.cli.handle = -1, -1
	s.state, s.deadline = stateEnded, 0
	l.timers.remove(s)
	l.sessions.remove(s)
	l.load.Add(-1)
	c.Admission = s.Yield()
	e.calls(c)
}
