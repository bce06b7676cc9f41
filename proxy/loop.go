// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"sluice/accesslog"
	"sluice/session"
)

const (
	// chunk is how much one read takes (see bulkChunk for bulk). A session that
	// can't pass it on keeps at most this much a direction in memory of ours.
	chunk = 128 << 10
	// burst is how many reads in a row a direction gets before others have a turn.
	burst = 4
	// spareBuffers is how many buffers for held-back bytes a loop keeps for reuse.
	spareBuffers = 16
	// eventBatch is how many events one epoll_wait fetches.
	eventBatch = 256
	// batchOne is one event a wake in loop.batch.
	batchOne = 1 << 10
	// yieldEvery is how often a loop passes through Go's scheduler. The runtime's
	// monitor takes a goroutine that hasn't for 10 ms for one that hogs its
	// place: it sends the thread a signal, takes the place away at the next
	// epoll_wait, which the loop then has to win back, and looks again every
	// 20 us as long as that goes on (retake in runtime/proc.go, Go 1.26).
	yieldEvery = 8 * time.Millisecond
)

// handler is what lies behind a registered descriptor.
type handler interface {
	// ready is told the epoll events that came for the descriptor.
	ready(l *loop, events uint32)
}

// registration is a descriptor's with the loop. The generation tells an event that was fetched
// before its descriptor was closed from one of the descriptor's successor.
type registration struct {
	h   handler
	gen int32
}

// loop is one event loop: a goroutine, an epoll instance, and the sessions
// that were accepted on it. All of a session happens on its loop, so that
// nothing in a session is locked.
type loop struct {
	e      *Engine
	id     int
	epfd   int
	wakefd int32

	registrations []registration
	free          []int32
	gen           int32

	now     int64  // monotonic, ns, taken after each wait
	yield   int64  // when it last passed through Go's scheduler
	wakes   uint64 // how often a wait has ended
	batch   int32  // events a wake: a running mean, quick to rise, in 1/batchOne
	timers  timerHeap
	hot     []*pair // directions that used up their burst
	spare   [][]byte
	buf     []byte
	pipe    pipe
	rec     accesslog.Record // of the session that ends
	outcome session.Outcome  // likewise

	sessions  sessionList
	load      atomic.Int32 // sessions, those on their way here included
	other     int          // the loop that was last looked at for handing over
	moving    int          // sessions with a mover
	armed     int          // sessions that wait to be forwarded
	seeking   []*forwarder // armed, without a quiet moment so far
	settling  []*forwarder // cut, with sockets that are to be let go
	lingering []lingering
	lookAt    int64 // when something of these is due; 0: nothing is
	drainAt   int64 // when to look for events of the forward program; 0: when it wakes us
	watched   int   // sessions of watchPeers
	sweepAt   int64
	soon      []soonEntry // sessions to be looked at before that, in order
	sweeping  bool

	waiting  []*acceptor // stopped for want of descriptors, or of memory
	retrying bool        // they are to be started again at a time

	askers    []*pair     // that wait for the loop's next question
	asking    bool        // one is open
	asked     []*question // put to this loop in this round
	due       []*question // put in an earlier one
	dueRounds int
	parting   []parting // clients that have sent their end of stream
	ending    int       // sessions with a mover that have ended but for their last bytes
	endsSeen  uint64    // by the forward program's count, when it was last looked at

	mu     sync.Mutex
	posted []func()
	ended  bool
	awake  atomic.Bool // a wake-up is already under way
	quit   bool
	done   chan struct{}
}

func newLoop(e *Engine, id int) (*loop, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		unix.Close(epfd)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	l := &loop{e: e, id: id, epfd: epfd, wakefd: int32(wake), buf: make([]byte, chunk), done: make(chan struct{})}
	l.now = e.clock.Now()
	if l.pipe, err = newPipe(); err != nil {
		e.log.Debug().Err(err).Msg("no pipe for bulk: it is copied")
	}
	if _, err := l.register(l.wakefd, unix.EPOLLIN, wakeHandler{}); err != nil {
		l.shut()
		return nil, err
	}
	return l, nil
}

// register adds fd to the loop and returns its handle.
func (l *loop) register(fd int32, events uint32, h handler) (int32, error) {
	var i int32
	if n := len(l.free); n > 0 {
		i = l.free[n-1]
		l.free = l.free[:n-1]
	} else {
		i = int32(len(l.registrations))
		l.registrations = append(l.registrations, registration{})
	}
	l.gen++
	l.registrations[i] = registration{h: h, gen: l.gen}
	ev := unix.EpollEvent{Events: events, Fd: i, Pad: l.gen}
	if e := rawEpollCtl(l.epfd, unix.EPOLL_CTL_ADD, fd, &ev); e != 0 {
		l.registrations[i] = registration{}
		l.free = append(l.free, i)
		return -1, fmt.Errorf("epoll_ctl: %w", e)
	}
	return i, nil
}

// modify changes what handle i waits for; with EPOLLET it reports anew what
// is ready already.
func (l *loop) modify(fd, i int32, events uint32) {
	ev := unix.EpollEvent{Events: events, Fd: i, Pad: l.registrations[i].gen}
	rawEpollCtl(l.epfd, unix.EPOLL_CTL_MOD, fd, &ev)
}

// forget gives a handle back. The descriptor itself leaves the epoll instance
// by being closed, or by deregister.
func (l *loop) forget(i int32) {
	l.registrations[i] = registration{}
	l.free = append(l.free, i)
}

func (l *loop) deregister(fd, i int32) {
	rawEpollCtl(l.epfd, unix.EPOLL_CTL_DEL, fd, &unix.EpollEvent{})
	l.forget(i)
}

// post runs f on the loop soon; not at all once the loop has ended. Safe from any
// goroutine, also the loop's own.
func (l *loop) post(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return // the number of wakefd may be somebody else's by now
	}
	l.posted = append(l.posted, f)
	if !l.awake.Swap(true) {
		var one [8]byte
		binary.NativeEndian.PutUint64(one[:], 1)
		unix.Write(int(l.wakefd), one[:])
	}
}

// call runs f on the loop and waits for it; false if the loop has ended.
// Not to be called from a loop.
func (l *loop) call(f func()) bool {
	ran := make(chan struct{})
	l.post(func() { f(); close(ran) })
	select {
	case <-ran:
		return true
	case <-l.done:
		return false
	}
}

type wakeHandler struct{}

func (wakeHandler) ready(l *loop, _ uint32) {
	var b [8]byte
	rawRead(l.wakefd, b[:])
	l.awake.Store(false)
	l.mu.Lock()
	todo := l.posted
	l.posted = nil
	l.mu.Unlock()
	for _, f := range todo {
		f()
	}
}

func rawRead(fd int32, b []byte) {
	unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
}

// run serves until quit is set by a posted function.
func (l *loop) run() {
	defer close(l.done)
	events := make([]unix.EpollEvent, eventBatch)
	for !l.quit {
		n, err := unix.EpollWait(l.epfd, events, l.timeout())
		l.now = l.e.clock.Now()
		l.wakes++
		if l.now-l.yield >= int64(yieldEvery) {
			l.yield = l.now
			runtime.Gosched()
		}
		if err != nil && err != unix.EINTR {
			// Only a bug makes epoll_wait fail; going round without rest
			// would hide it behind a busy session.
			l.e.log.Error().Err(err).Msg("epoll_wait failed")
			time.Sleep(100 * time.Millisecond)
			continue
		}
		if d := int32(n)*batchOne - l.batch; n > 0 && d > 0 {
			l.batch += d / 4
		} else if n > 0 {
			l.batch += d / 32
		}
		for i := range events[:max(n, 0)] {
			ev := &events[i]
			if s := l.registrations[ev.Fd]; s.h != nil && s.gen == ev.Pad {
				s.h.ready(l, ev.Events)
			}
		}
		l.runHot()
		l.look()
		l.expire()
		l.answer(n)
	}
	l.dropLingering(true)
	l.shut()
}

// timeout is how long epoll_wait may sleep, in ms; -1 without end.
func (l *loop) timeout() int {
	if len(l.hot) > 0 || len(l.due) > 0 {
		return 0
	}
	at := l.next()
	if at == 0 {
		return -1
	}
	d := at - l.e.clock.Now()
	if d <= 0 {
		return 0
	}
	return int((d + int64(time.Millisecond) - 1) / int64(time.Millisecond))
}

// next is when the loop has something to do by itself, monotonic ns; 0: never.
func (l *loop) next() (at int64) {
	if len(l.timers) > 0 {
		at = l.timers[0].key
	}
	if l.sweeps() && (at == 0 || l.sweepAt < at) {
		at = l.sweepAt
	}
	if len(l.soon) > 0 && (at == 0 || l.soon[0].at < at) {
		at = l.soon[0].at
	}
	for _, due := range []int64{l.lookAt, l.drainAt} {
		if due != 0 && (at == 0 || due < at) {
			at = due
		}
	}
	return at
}

func (l *loop) runHot() {
	if len(l.hot) == 0 {
		return
	}
	hot := l.hot
	l.hot = nil
	for _, s := range hot {
		s.hot = false
		if s.state == stateRelay {
			s.pumpBoth()
		}
	}
}

// expire handles the timers that are due and the once-a-second sweep.
func (l *loop) expire() {
	for len(l.timers) > 0 && l.timers[0].key <= l.now {
		s := l.timers[0].s
		if s.deadline == 0 {
			l.timers.remove(s)
			continue
		}
		if s.deadline > l.now {
			l.timers.moveTo(s, s.deadline)
			continue
		}
		l.timers.remove(s)
		s.deadline = 0
		s.expired()
	}
	l.runSoon()
	if l.sweeps() && l.sweepAt <= l.now {
		l.sweepAt = l.now + int64(time.Second)
		if l.moving > 0 {
			l.sweep()
		}
		if l.armed > 0 {
			l.sweepArmed()
		}
		if l.watched > 0 {
			l.sweepPeers()
		}
	}
}

// sweeps says whether there are sessions to be looked at once a second.
func (l *loop) sweeps() bool { return l.moving+l.watched+l.armed > 0 }

// startSweep is to be called before the first of them is counted.
func (l *loop) startSweep() {
	if !l.sweeps() {
		l.sweepAt = l.now + int64(time.Second)
	}
}

// getBuffer returns room for n bytes.
func (l *loop) getBuffer(n int) []byte {
	if n > chunk {
		return make([]byte, n)
	}
	if n := len(l.spare); n > 0 {
		b := l.spare[n-1]
		l.spare = l.spare[:n-1]
		return b
	}
	return make([]byte, chunk)
}

func (l *loop) putBuffer(b []byte) {
	if cap(b) == chunk && len(l.spare) < spareBuffers {
		l.spare = append(l.spare, b[:chunk])
	}
}

// shut closes what the loop itself holds; its sessions are gone by then.
func (l *loop) shut() {
	l.mu.Lock()
	l.ended, l.posted = true, nil
	l.mu.Unlock()
	l.pipe.close()
	unix.Close(int(l.wakefd))
	unix.Close(l.epfd)
}
