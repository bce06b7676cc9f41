// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"time"

	"golang.org/x/sys/unix"

	"sluice/loader"
	"sluice/stats"
)

const (
	spliceEvents = unix.EPOLLRDHUP | uint32(unix.EPOLLET&0xffffffff)
	passEvents   = spliceEvents | unix.EPOLLIN
	outEvents    = unix.EPOLLOUT

	minBackoff = int64(time.Millisecond)
	maxBackoff = int64(10 * time.Millisecond)
	// stuckBackoff is for a reader that has taken nothing since the last look.
	stuckBackoff = int64(250 * time.Millisecond)
	// deadQueue is how long redirected bytes may keep an end of stream waiting
	// while their target's send queue is empty.
	deadQueue = int64(5 * time.Second)
	// lastWords is how long a reset waits for bytes that came before it.
	lastWords = int64(50 * time.Millisecond)
)

// kernelPart is what a session has besides while it is in the map. Index 0 is
// the direction from the client, 1 the one from the backend.
type kernelPart struct {
	flow    uint32
	in      bool // in the map now
	half    [2]*loader.Half
	dir     [2]passing
	spliced uint64 // bytes the kernel moved, once the session has left the map
	backoff int64
	lost    *end // the end whose connection broke, if one did
	lostAt  int64
}

// passing is one direction's state in userspace.
type passing struct {
	inAt    uint64 // source's bytes read before the map
	outAt   uint64 // target's bytes written before the map
	base    uint64 // target's acknowledged plus queued bytes at that time
	read    uint64 // passed bytes that have been read
	seen    uint64 // passed bytes at the last sweep
	written uint64 // target's progress at the last look
	movedAt int64  // when that last changed
	armed   bool   // we wait for EPOLLIN of the source
	clear   bool   // every byte before the passed ones is in the target's socket
	fin     bool   // the source's FIN has arrived
	plain   bool   // the source isn't in the map: read as in relay, to its end, which has come
	ended   bool   // of a plain one: all is read
}

// ours says that userspace moves the direction's bytes at present.
func (d *passing) ours() bool { return d.armed || d.plain }

// Splice is the loader's view of the sockmap program.
type Splice = *loader.Splice

// queueDead resets a session of which redirected bytes never reach the target,
// although its send queue is empty: the kernel's worker has stopped, for
// whatever reason, and nobody else would notice.
func (s *session) queueDead(i int) bool {
	d := &s.kern.dir[i]
	since := max(d.movedAt, int64(s.kern.half[i].LastActive()))
	if s.loop.now-since < deadQueue || outq(s.ends()[1-i].fd) > 0 {
		return false
	}
	s.lose()
	return true
}

// drained says whether every byte of direction i up to now, redirected or
// written by us, has entered the target's socket.
func (s *session) drained(i int) bool {
	k, d := s.kern, &s.kern.dir[i]
	dst := s.ends()[1-i]
	w, ok := entered(dst.fd)
	if !ok {
		return false
	}
	w -= d.base
	if w != d.written {
		d.written, d.movedAt = w, s.loop.now
		k.backoff = min(k.backoff, maxBackoff)
	}
	return w >= k.half[i].Redirected()+(dst.out-d.outAt)
}

// announcements is the ring buffer by which the program says that it began to
// pass bytes to userspace.
type announcements struct{ e *Engine }

func (a announcements) ready(l *loop, _ uint32) {
	a.e.splice.Drain(func(index uint32) {
		flow := index / 2
		if int(flow) >= len(a.e.flows) {
			return
		}
		s := a.e.flows[flow].Load()
		switch {
		case s == nil:
		case s.loop == l:
			s.announced(flow, int(index%2))
		default:
			s.loop.post(func() { s.announced(flow, int(index%2)) })
		}
	})
}

// announced is told of bytes passed in direction i. They may have been moved
// since, and the direction handed back: taken over while the program redirects,
// its run of this moment could redirect bytes that drained doesn't know of.
func (s *session) announced(flow uint32, i int) {
	if s.state != stateSplice || s.kern.flow != flow || s.broken(i) {
		return
	}
	if h := s.kern.half[i]; h.Passed() != h.Forwarded() {
		s.takeOver(i)
	}
}

// broken ends a session of which the kernel has lost bytes in direction i.
func (s *session) broken(i int) bool {
	if s.kern.half[i].Broken() {
		s.lose()
		return true
	}
	return false
}

// lose ends a session of which the kernel has lost bytes.
func (s *session) lose() {
	s.set.Counters.Fallback("map_error")
	s.loop.e.log.Debug().Str("listener", s.set.Config.Name).Stringer("client", s.client).Msg("the kernel lost bytes of a session: it is reset")
	s.cut(stats.Internal)
}

// takeOver has userspace move direction i for a while; only when it has been
// passed bytes, so that the program doesn't redirect meanwhile. It runs
// before the bytes it passes are queued: so EPOLLIN is armed, not just read.
func (s *session) takeOver(i int) {
	k := s.kern
	if k.dir[i].armed {
		return
	}
	k.dir[i].armed = true
	k.half[i].SetHold(true)
	s.rearm(i)
}

// rearm sets what the source of direction i is watched for.
func (s *session) rearm(i int) {
	src := s.ends()[i]
	events := spliceEvents
	if s.kern.dir[i].ours() {
		events = passEvents
	}
	if src.full || s.kern.dir[1-i].ours() {
		events |= outEvents
	}
	s.loop.modify(src.fd, src.handle, events)
}

// spliceReady is told what happened to a socket that is in the map.
func (s *session) spliceReady(e *end, events uint32) {
	i := 0
	if e == &s.up {
		i = 1
	}
	if events&unix.EPOLLERR != 0 {
		if s.kern.lost == nil {
			s.kern.lost, s.kern.lostAt = e, s.loop.now
		}
		s.advance()
		return
	}
	if events&(unix.EPOLLRDHUP|unix.EPOLLHUP) != 0 && !e.eof {
		s.kern.dir[i].fin = true
	}
	if events&unix.EPOLLIN != 0 {
		e.readable = true
	}
	if events&unix.EPOLLOUT != 0 {
		e.full = false
	}
	s.kern.backoff = 0
	s.advance()
}

func (s *session) spliceExpired() { s.advance() }

// advance moves on what userspace has to do with a session in the map.
func (s *session) advance() {
	if s.kern.lost != nil {
		s.afterLoss()
		return
	}
	wait := false
	for i := range 2 {
		if s.state != stateSplice {
			return
		}
		if s.advanceOne(i) {
			wait = true
		}
	}
	if s.state != stateSplice {
		return
	}
	if !wait {
		s.deadline = 0
		return
	}
	k := s.kern
	k.backoff = min(max(2*k.backoff, minBackoff), stuckBackoff)
	s.loop.timers.set(s, s.loop.now+k.backoff)
}

// afterLoss resets the pair once what the broken end had sent before has
// reached the other's socket; it doesn't wait long for that.
func (s *session) afterLoss() {
	k := s.kern
	i := 0
	if k.lost == &s.up {
		i = 1
	}
	if k.dir[i].plain {
		k.lost.readable = true
		if !s.movePassed(i) && s.state != stateSplice {
			return
		}
	}
	if s.loop.now-k.lostAt >= lastWords || s.drained(i) && k.lost.other().held == nil {
		s.cut(s.resetBy(k.lost))
		return
	}
	s.loop.timers.set(s, s.loop.now+minBackoff)
}

// advanceOne works on direction i; true if it must look again without an event.
func (s *session) advanceOne(i int) (again bool) {
	k, d := s.kern, &s.kern.dir[i]
	src := s.ends()[i]
	dst := src.other()
	if src.eof || !d.ours() && !d.fin || s.broken(i) {
		return false
	}
	if d.plain {
		src.readable = src.readable || d.fin
		if s.movePassed(i) && d.ended {
			s.passLastFIN(src, dst)
		}
		return false
	}
	if d.fin {
		// Runs the verdict on whatever still lies in the receive queue.
		var b [1]byte
		rawRecv(src.fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if !d.armed && k.half[i].Passed() != k.half[i].Forwarded() {
			s.takeOver(i)
		}
	}
	if !d.clear {
		if !s.drained(i) {
			return !s.queueDead(i)
		}
		d.clear = d.armed
	}
	if d.armed {
		if d.fin {
			src.readable = true
		}
		if !s.movePassed(i) {
			return false
		}
	}
	if d.fin {
		return !s.passMappedFIN(i, src, dst)
	}
	return false
}

// movePassed relays what the program passed, or all of a plain direction; false
// if the session has ended, or the target takes no more at present (its
// EPOLLOUT tells).
func (s *session) movePassed(i int) bool {
	d := &s.kern.dir[i]
	src := s.ends()[i]
	dst := src.other()
	buf := s.loop.buf
	for n := 0; ; n++ {
		if dst.held != nil {
			ok := s.flushHeld(dst)
			s.forwardedUp(i)
			if dst.broken {
				s.cut(s.resetBy(dst))
				return false
			}
			if !ok {
				s.rearm(1 - i)
				return false
			}
		}
		if !src.readable {
			return true
		}
		if n == 4*burst {
			s.loop.post(func() {
				if s.state == stateSplice {
					s.advance()
				}
			})
			return false
		}
		got, errno := rawRecv(src.fd, buf, 0)
		switch {
		case got > 0:
			s.gotBytes(src, got)
			if !d.plain {
				d.read += uint64(got)
			}
			if !s.give(dst, buf[:got]) {
				s.cut(s.resetBy(dst))
				return false
			}
			s.forwardedUp(i)
		case got == 0, errno == unix.EAGAIN:
			src.readable = false
			d.ended = d.plain && got == 0
		case errno == unix.EINTR:
		default:
			s.cut(s.resetBy(src))
			return false
		}
	}
}

// forwardedUp tells the program how many of the passed bytes the target has:
// only once all are there may it redirect again.
func (s *session) forwardedUp(i int) {
	d := &s.kern.dir[i]
	if d.plain {
		return
	}
	dst := s.ends()[1-i]
	s.kern.half[i].SetForwarded(d.read - uint64(len(dst.held)))
}

// passMappedFIN passes the source's FIN on, if every byte before it is in the
// target's socket: passed bytes all forwarded, redirected and passed ones
// together what the source received, and all of it entered the target.
func (s *session) passMappedFIN(i int, src, dst *end) bool {
	h, d := s.kern.half[i], &s.kern.dir[i]
	passed := h.Passed()
	if passed != d.read || dst.held != nil {
		if !d.armed {
			s.takeOver(i)
		}
		return false
	}
	var ti unix.TCPInfo
	if !tcpInfo(src.fd, &ti) {
		return false
	}
	if h.Redirected()+passed+d.inAt+1 < ti.Bytes_received {
		return false
	}
	if !s.drained(i) {
		return false
	}
	s.passLastFIN(src, dst)
	return true
}

// passLastFIN passes the source's FIN on; all before it has been.
func (s *session) passLastFIN(src, dst *end) {
	src.eof = true
	if !s.passFIN(src, dst) {
		s.cut(s.resetBy(dst))
	}
}
