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

// handOver is how many sessions more than another a loop may have before it
// gives that one the connections it accepts.
const handOver = 8

// acceptor is one loop's listening socket of a front.
type acceptor struct {
	f      *Front
	fd     int32
	handle int32
	sa     sockaddr
	// stopping: the front is closing, and its queue is served whatever the limits
	stopping bool
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

// handshakeTime is how long handshakes that are under way when a front closes
// have to complete.
const handshakeTime = 100 * time.Millisecond

// stop closes the socket without resetting anybody who is about to be served:
// new SYNs are dropped, so that their retransmission finds whoever has the
// address then; handshakes under way complete, and the queue is served. done
// is called on the loop once the socket is closed.
func (a *acceptor) stop(l *loop, done func()) {
	a.stopping = true
	a.drain(l)
	if a.f.addr.Path != "" || !dropSYNs(a.fd) {
		a.shut(l)
		done()
		return
	}
	time.AfterFunc(handshakeTime, func() {
		l.post(func() {
			a.drain(l)
			a.shut(l)
			done()
		})
	})
}

func (a *acceptor) drain(l *loop) {
	for a.accept(l) {
	}
}

func (a *acceptor) shut(l *loop) {
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

// dropSYNs has a listening socket ignore new handshakes; segments of those
// that are under way pass. A socket's filter sees a packet from the TCP header
// on (tcp_filter in net/ipv4/tcp_ipv4.c). Accepted sockets inherit it, where
// it does no harm.
func dropSYNs(fd int32) bool {
	const flags, syn, ack = 13, 0x02, 0x10
	code := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: flags},
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: syn | ack},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: syn},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1},
	}
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	return unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog) == nil
}

// accept takes one connection in; false when there is none to take.
func (a *acceptor) accept(l *loop) bool {
	e := l.e
	if a.stopping {
		e.fds.Add(2) // who waits in the queue would be reset: it may use what is kept back
	} else if !e.takeFDs() {
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
		if a.stopping {
			return false
		}
		a.pause(l, 100*time.Millisecond)
		return false
	case unix.EBADF, unix.EINVAL:
		return false
	default:
		return true // the connection was gone already, or a passing network error (accept(2))
	}
	client := a.sa.addrPort()
	e.live.Add(1)
	to := l.emptier()
	if to == nil {
		l.load.Add(1)
		a.begin(l, fd, client)
		return true
	}
	to.load.Add(1)
	to.post(func() { a.begin(to, fd, client) })
	return true
}

// emptier is a loop that has clearly fewer sessions, nil if the next one in
// turn hasn't. The kernel spreads connections over a front's sockets by a hash:
// of 64, one of two loops may well get 40, and then has most of the work for as
// long as they live.
func (l *loop) emptier() *loop {
	loops := l.e.loops
	if len(loops) == 1 {
		return nil
	}
	if l.other = (l.other + 1) % len(loops); l.other == l.id {
		l.other = (l.other + 1) % len(loops)
	}
	if o := loops[l.other]; l.load.Load()-o.load.Load() >= handOver {
		return o
	}
	return nil
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
