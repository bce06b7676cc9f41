// SPDX-License-Identifier: Apache-2.0

// Package proxy serves sessions: it accepts, has a backend picked, dials,
// retries, relays, hands a session that is worth it to the kernel (splice),
// and closes. It uses raw non-blocking sockets on event loops of its own:
// with Go's netpoller each message that the kernel moves by itself would
// still wake a goroutine.
package proxy

import (
	"errors"
	"math"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"sluice/pool"
	"sluice/stats"
)

// Dispatch knows what the sk_lookup program picked for a connection.
type Dispatch interface {
	// Redeem returns the Backend.ID picked for the connection from client to
	// server, and forgets it.
	Redeem(client, server netip.AddrPort) (backendID uint32, ok bool)
	// Ended says that the connection is about to be closed: what still comes of
	// it is no new one.
	Ended(client, server netip.AddrPort)
}

// Options configure an Engine.
type Options struct {
	Loops int // event loops; 0: one for each CPU the process may run on
	Log   zerolog.Logger
	// Record is called once at the end of each session, on its loop; the
	// record is the callee's only during the call. accessLog is the
	// listener's option.
	Record   func(s *stats.Session, accessLog bool)
	Dispatch Dispatch // nil: every pick is made at accept
	Splice   Splice   // nil: every session is relayed; closed by its owner, after the engine
	// MaxSessionFDs bounds the descriptors of sessions together; accepting
	// stops there until one is free. 0: no bound but the kernel's.
	MaxSessionFDs int
	// MapBatch is how many events a wake, in the mean, a loop may find for its
	// sessions to enter the map of Splice; a busier one moves their messages
	// itself. 0: what measures best.
	MapBatch int
}

// Engine owns the event loops and all sessions.
type Engine struct {
	log     zerolog.Logger
	record  func(*stats.Session, bool)
	disp    Dispatch
	splice  Splice
	flows   []atomic.Pointer[session] // by flow, while a session is in the map
	loops   []*loop
	base    time.Time // start of the engine's monotonic clock
	monoOff int64     // what to add to get CLOCK_MONOTONIC

	// gen: a session takes its listener's settings and its pick under the read
	// side; an update of all pools and listeners holds the write side.
	gen sync.RWMutex

	ids      atomic.Uint64
	live     atomic.Int64
	fds      atomic.Int64
	maxFDs   int64
	mapBatch int32
	starved  atomic.Bool // some acceptor waits for a descriptor
	fdsLogAt atomic.Int64

	idleMu sync.Mutex
	idle   []chan struct{}

	closeOnce sync.Once
}

// New starts the loops. Close ends them.
func New(o Options) (*Engine, error) {
	n := o.Loops
	if n <= 0 {
		n = cpus()
	}
	e := &Engine{log: o.Log, record: o.Record, disp: o.Dispatch, splice: o.Splice, base: time.Now(), maxFDs: int64(o.MaxSessionFDs)}
	if e.mapBatch = int32(min(o.MapBatch, math.MaxInt32/batchOne)); e.mapBatch <= 0 {
		e.mapBatch = mapBatch
	}
	if e.record == nil {
		e.record = func(*stats.Session, bool) {}
	}
	e.monoOff = monotonicNow() - int64(time.Since(e.base))
	for i := range n {
		l, err := newLoop(e, i)
		if err != nil {
			for _, l := range e.loops {
				l.shut()
			}
			return nil, err
		}
		e.loops = append(e.loops, l)
	}
	if e.splice != nil {
		e.flows = make([]atomic.Pointer[session], e.splice.MaxFlows())
		// The loop's goroutine isn't running yet, so its slots can be used here.
		if _, err := e.loops[0].register(int32(e.splice.Announcements()), unix.EPOLLIN, announcements{e}); err != nil {
			for _, l := range e.loops {
				l.shut()
			}
			return nil, err
		}
	}
	for _, l := range e.loops {
		go l.run()
	}
	return e, nil
}

// cpus is how many CPUs the process may run on.
func cpus() int {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) == nil && set.Count() > 0 {
		return set.Count()
	}
	return runtime.NumCPU()
}

func monotonicNow() int64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return 0
	}
	return ts.Nano()
}

// clock is CLOCK_MONOTONIC in ns, the clock of bpf_ktime_get_ns, without a
// system call.
func (e *Engine) clock() int64 { return int64(time.Since(e.base)) + e.monoOff }

// wall turns a reading of clock into the time of day.
func (e *Engine) wall(mono int64) time.Time { return e.base.Add(time.Duration(mono - e.monoOff)) }

// Close resets what sessions are left, without waiting for anybody, and ends
// the loops. Fronts are to be closed before.
func (e *Engine) Close() error {
	e.closeOnce.Do(func() {
		for _, l := range e.loops {
			l.post(func() {
				l.resetAll(stats.Shutdown)
				l.quit = true
			})
		}
		for _, l := range e.loops {
			<-l.done
		}
	})
	return nil
}

// Update runs f while no session takes its settings or a pick, so that one
// generation covers all pools and listeners. f must not wait for a loop.
func (e *Engine) Update(f func()) {
	e.gen.Lock()
	defer e.gen.Unlock()
	f()
}

// Sessions is how many are live.
func (e *Engine) Sessions() int { return int(e.live.Load()) }

// Idle returns a channel that is closed once no session is live.
func (e *Engine) Idle() <-chan struct{} {
	c := make(chan struct{})
	e.idleMu.Lock()
	e.idle = append(e.idle, c)
	e.idleMu.Unlock()
	if e.live.Load() == 0 {
		e.tellIdle()
	}
	return c
}

func (e *Engine) tellIdle() {
	e.idleMu.Lock()
	for _, c := range e.idle {
		close(c)
	}
	e.idle = nil
	e.idleMu.Unlock()
}

// ResetAll resets every session; each gets its line (200, shutdown).
func (e *Engine) ResetAll() {
	for _, l := range e.loops {
		l.call(func() { l.resetAll(stats.Shutdown) })
	}
}

// ResetBackends resets the sessions of these backends (200, removed). They
// are reset when it returns.
func (e *Engine) ResetBackends(gone []*pool.Backend) {
	if len(gone) == 0 {
		return
	}
	set := make(map[*pool.Backend]bool, len(gone))
	for _, b := range gone {
		set[b] = true
	}
	for _, l := range e.loops {
		l.call(func() {
			l.sessions.each(func(s *session) {
				if s.backend != nil && set[s.backend] {
					s.cut(stats.Removed)
				}
			})
		})
	}
}

// Flush brings the byte counters of live sessions into those of their
// listeners and backends.
func (e *Engine) Flush() {
	for _, l := range e.loops {
		l.call(func() { l.sessions.each((*session).flush) })
	}
}

// Flows describes live sessions, newest first, limit at most.
func (e *Engine) Flows(limit int) []stats.Flow {
	var lists [][]stats.Flow
	for _, l := range e.loops {
		var list []stats.Flow
		l.call(func() {
			l.sessions.newest(func(s *session) bool {
				if len(list) >= limit {
					return false
				}
				list = append(list, s.describe())
				return true
			})
		})
		lists = append(lists, list)
	}
	return mergeFlows(lists, limit)
}

// mergeFlows merges lists that are each sorted by falling ID.
func mergeFlows(lists [][]stats.Flow, limit int) []stats.Flow {
	out := []stats.Flow{}
	for len(out) < limit {
		best := -1
		for i, l := range lists {
			if len(l) > 0 && (best < 0 || l[0].ID > lists[best][0].ID) {
				best = i
			}
		}
		if best < 0 {
			break
		}
		out = append(out, lists[best][0])
		lists[best] = lists[best][1:]
	}
	return out
}

// errNoFront is for a Bind that has nothing to bind.
var errNoFront = errors.New("neither an IP address nor a unix path to listen on")
