// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"sluice/stats"
)

// acceptBatch is how many connections one readiness takes in before sessions
// have a turn again.
const acceptBatch = 16

// acceptor is one loop's listening socket of a front.
type acceptor struct {
	f      *Front
	fd     int32
	handle int32
	sa     sockaddr
}

func (a *acceptor) start(l *loop) {
	events := uint32(unix.EPOLLIN)
	if a.f.addr.Path != "" {
		events |= unix.EPOLLEXCLUSIVE
	}
	h, err := l.register(a.fd, events, a)
	if err != nil {
		l.e.log.Error().Err(err).Str("listener", a.f.set.Load().Config.Name).Msg("cannot accept on this event loop")
		return
	}
	a.handle = h
}

func (a *acceptor) ready(l *loop, _ uint32) {
	for range acceptBatch {
		if !a.accept(l) {
			return
		}
	}
}

// stop serves what is in the queue and closes the socket.
func (a *acceptor) stop(l *loop) {
	for a.accept(l) {
	}
	for i, w := range l.waiting {
		if w == a {
			l.waiting = append(l.waiting[:i], l.waiting[i+1:]...)
			break
		}
	}
	if a.handle >= 0 {
		l.deregister(a.fd, a.handle)
		a.handle = -1
	}
	rawClose(a.fd)
	a.fd = -1
}

// accept takes one connection in; false when there is none to take.
func (a *acceptor) accept(l *loop) bool {
	e := l.e
	if !e.takeFDs() {
		a.pause(l, 0)
		return false
	}
	fd, errno := rawAccept(a.fd, &a.sa)
	if errno != 0 {
		e.giveFDs()
	}
	switch errno {
	case 0:
	case unix.EAGAIN:
		return false
	case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
		a.pause(l, 100*time.Millisecond)
		return false
	case unix.EBADF, unix.EINVAL:
		return false
	default:
		return true // the connection was gone already, or a passing network error (accept(2))
	}
	a.begin(l, fd, a.sa.addrPort())
	return true
}

// takeFDs reserves the two descriptors of a session, before it is accepted so
// that loops together keep the bound; false where there are none to spare.
func (e *Engine) takeFDs() bool {
	for {
		n := e.fds.Load()
		if e.maxFDs > 0 && n+2 > e.maxFDs {
			return false
		}
		if e.fds.CompareAndSwap(n, n+2) {
			return true
		}
	}
}

// giveFDs gives them back, and has those that wait for some go on.
func (e *Engine) giveFDs() {
	e.fds.Add(-2)
	if e.starved.Load() && e.starved.Swap(false) {
		for _, l := range e.loops {
			l.post(l.resume)
		}
	}
}

// pause stops accepting on this loop until a session has ended, or for retry
// if it is not ours to free what is missing.
func (a *acceptor) pause(l *loop, retry time.Duration) {
	e := l.e
	if now := l.now; now-e.fdsLogAt.Load() > int64(time.Second) {
		e.fdsLogAt.Store(now)
		e.log.Warn().Int64("descriptors", e.fds.Load()).Msg("out of descriptors: not accepting until a session ends; raise LimitNOFILE")
	}
	if a.handle >= 0 {
		l.deregister(a.fd, a.handle)
		a.handle = -1
		l.waiting = append(l.waiting, a)
	}
	e.starved.Store(true)
	if retry > 0 {
		time.AfterFunc(retry, func() { l.post(l.resume) })
	} else if e.fds.Load()+2 <= e.maxFDs {
		l.post(l.resume) // one ended between the look and the flag
	}
}

// resume takes accepting up again.
func (l *loop) resume() {
	waiting := l.waiting
	l.waiting = nil
	for _, a := range waiting {
		a.start(l)
	}
}

// begin makes a session of an accepted connection.
func (a *acceptor) begin(l *loop, fd int32, client netip.AddrPort) {
	e := l.e
	s := &session{loop: l, front: a.f, client: client, begun: l.now, last: l.now, took: -1, id: e.ids.Add(1)}
	s.cli = end{s: s, fd: fd, handle: -1, eager: true} // TCP_NODELAY comes from the listening socket
	s.up = end{s: s, fd: -1, handle: -1}
	l.sessions.add(s)
	e.live.Add(1)

	e.gen.RLock()
	s.set = a.f.set.Load()
	c := s.set.Config
	s.set.Counters.Total.Add(1)
	s.set.Counters.Active.Add(1)
	if a.f.fixed.IsValid() {
		s.server = a.f.fixed
	} else if client.IsValid() && (s.set.ServerAddr || s.set.Dispatched || c.ProxySend != "off") {
		s.server = localAddr(fd)
	}
	if c.Keepalive != a.f.keepalive && client.IsValid() {
		setKeepalive(fd, c.Keepalive) // an edit since the socket was bound
	}
	switch {
	case (len(c.Allow) > 0 || len(c.Deny) > 0) && !admitted(c, client.Addr()):
		e.gen.RUnlock()
		s.finish(403, stats.Denied)
	case c.ProxyAccept:
		e.gen.RUnlock()
		s.awaitHeader()
	default:
		s.enter() // gives the lock back
	}
}

// enter counts the session in and starts its first attempt. Called with the
// read side of gen held, which it gives back: the pick belongs to the same
// generation as the settings.
func (s *session) enter() {
	e := s.loop.e
	c := s.set.Config
	if s.set.Limits != nil {
		if !s.set.Limits.enter(s.client.Addr(), c.MaxConns, c.MaxConnsPerIP) {
			e.gen.RUnlock()
			s.finish(503, stats.Limited)
			return
		}
		s.limited = true
	}
	s.picks.Key = s.client.Addr()
	s.state = stateConnect
	s.tries = int32(s.set.Pool.Tries())
	if c.Tries > 0 {
		s.tries = min(s.tries, int32(c.Tries))
	}
	s.firstPick()
	e.gen.RUnlock()
	s.attempt()
}

// firstPick takes the backend that the kernel proposed, or the next one.
func (s *session) firstPick() {
	now := s.loop.e.wall(s.loop.now)
	if s.set.Dispatched && s.loop.e.disp != nil && s.client.IsValid() {
		if id, ok := s.loop.e.disp.Redeem(s.client, s.server); ok {
			s.backend = s.set.Pool.Redeem(&s.picks, id, now)
			return
		}
	}
	s.backend = s.set.Pool.Pick(&s.picks, now)
}
