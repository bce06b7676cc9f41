// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// acceptBatch is how many connections one readiness takes in before sessions
// have a turn again.
const acceptBatch = 16

// handOver is how many sessions more than another a loop may have before it
// gives that one the connections it accepts.
const handOver = 8

// retryTime is how long a loop waits that can't accept for a lack of the
// host's, which nobody tells the end of.
const retryTime = 100 * time.Millisecond

// acceptor is one loop's listening socket of a front.
type acceptor struct {
	f      *Front
	fd     int32
	handle int32
	sa     sockaddr
	last   int // the leaving that waits for the end of this queue; 0: none
}

func (a *acceptor) start(l *loop) {
	events := uint32(unix.EPOLLIN)
	if a.f.addr.Path != "" {
		events |= unix.EPOLLEXCLUSIVE
	}
	h, err := l.register(a.fd, events, a)
	if err != nil {
		// For want of memory, or of fs.epoll.max_user_watches: it may be there soon.
		if missed, ok := l.e.noAccept.take(l.now); ok {
			l.e.log.Error().Err(err).Str("listener", a.f.set.Load().Config.Name).Uint64("count", missed+1).
				Msg("an event loop can't accept: it tries again")
		}
		a.await(l, retryTime)
		return
	}
	a.handle = h
	if a.last != 0 && !a.queued() {
		a.emptied() // by others that share it, meanwhile
	}
}

func (a *acceptor) ready(l *loop, _ uint32) {
	for range acceptBatch {
		if got := a.accept(l); got != took {
			if got == empty && a.last != 0 {
				a.emptied()
			}
			return
		}
	}
}

// taken is what came of accepting.
type taken uint8

const (
	took   taken = iota
	empty        // nobody waits
	paused       // there are no descriptors to spare; a.pause goes on
)

// accept takes one connection in.
func (a *acceptor) accept(l *loop) taken {
	e := l.e
	if !e.takeFDs() {
		a.pause(l, 0)
		return paused
	}
	fd, errno := rawAccept(a.fd, &a.sa)
	if errno != 0 {
		e.giveFDs()
	}
	switch errno {
	case 0:
	case unix.EAGAIN:
		return empty
	case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
		a.pause(l, retryTime)
		return paused
	case unix.EBADF, unix.EINVAL:
		return empty
	default:
		return took // the connection was gone already, or a passing network error (accept(2))
	}
	client := a.sa.addrPort()
	e.sessions.Arrived()
	to := l.emptier()
	if to == nil {
		l.load.Add(1)
		a.begin(l, fd, client)
		return took
	}
	to.load.Add(1)
	to.post(func() { a.begin(to, fd, client) })
	return took
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
		if limit := e.maxFDs.Load(); limit > 0 && n+2 > limit {
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
	if _, ok := e.noFDs.take(l.now); ok {
		e.log.Warn().Int64("descriptors", e.fds.Load()).Msg("out of descriptors: not accepting until a session ends; raise LimitNOFILE")
	}
	if a.handle >= 0 {
		l.deregister(a.fd, a.handle)
		a.handle = -1
	}
	e.starved.Store(true)
	a.await(l, retry)
	if retry > 0 {
		return
	}
	if e.fds.Load()+2 <= e.maxFDs.Load() {
		l.post(l.resume) // one ended between the look and the flag
	}
}

// await has a, which isn't registered, started again by the next resume, which
// comes after retry if that isn't 0.
func (a *acceptor) await(l *loop, retry time.Duration) {
	if !slices.Contains(l.waiting, a) {
		l.waiting = append(l.waiting, a)
	}
	if retry > 0 && !l.retrying { // one is enough, however many wait
		l.retrying = true
		time.AfterFunc(retry, func() {
			l.post(func() {
				l.retrying = false
				l.resume()
			})
		})
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
