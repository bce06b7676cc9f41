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
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"sluice/accesslog"
	"sluice/internal/handshakes"
	"sluice/internal/mono"
	"sluice/pool"
	"sluice/session"
	"sluice/stats"
)

// Options configure an Engine.
type Options struct {
	Loops int // event loops; 0: one for each CPU the process may run on
	Log   zerolog.Logger
	// Sessions is where the engine's sessions belong. Nil: one of its own, whose
	// records go nowhere.
	Sessions *session.Registry
	Splice   Splice // nil: no session is spliced; closed by its owner, after the engine
	// Offload is as SetOffload has it. Nil: no session is forwarded.
	Offload *Offload
	// Calls takes the connections that speak HTTP/2, of listeners for calls. It is
	// called on an event loop and must not wait. Nil: they are plain sessions.
	Calls func(*Connection)
	// MaxSessionFDs bounds the descriptors of sessions together; accepting
	// stops there until one is free. 0: no bound but the kernel's.
	MaxSessionFDs int
	// MapBatch is how many events a wake, in the mean, a loop may find for its
	// sessions to enter the map of Splice; a busier one moves their messages
	// itself. 0: what measures best.
	MapBatch int
	// HeaderTimeout is how long a client may take for its PROXY header; 0: as
	// long as the interface says, 30 s.
	HeaderTimeout time.Duration
}

// Engine owns the event loops and all sessions.
type Engine struct {
	log      zerolog.Logger
	splice   Splice
	flows    []atomic.Pointer[splicer]  // by flow, while a session is in the map
	offload  atomic.Pointer[offloading] // nil: no session is forwarded
	loops    []*loop
	sessions *session.Registry
	clock    mono.Clock // the sessions' one
	calls    func(*Connection)

	handshakes handshakes.Observer // of all fronts that go

	fds      atomic.Int64
	maxFDs   atomic.Int64
	mapBatch int32
	// headerTimeout is how long a client may take for its PROXY header.
	headerTimeout time.Duration

	starved  atomic.Bool // some acceptor waits for a descriptor
	noFDs    seldom      // who tells of that
	noAccept seldom
	lacks    seldom // who tells of backends that can't be dialled
	unkept   seldom // who tells of sessions that can't be saved

	closeOnce sync.Once
}

// New starts the loops. Close ends them.
func New(o Options) (*Engine, error) {
	n := o.Loops
	if n <= 0 {
		n = cpus()
	}
	if o.Sessions == nil {
		o.Sessions = session.NewRegistry(session.Options{})
	}
	e := &Engine{log: o.Log, sessions: o.Sessions, splice: o.Splice, clock: o.Sessions.Clock(), calls: o.Calls}
	e.SetMaxSessionFDs(o.MaxSessionFDs)
	if e.mapBatch = int32(min(o.MapBatch, math.MaxInt32/batchOne)); e.mapBatch <= 0 {
		e.mapBatch = mapBatch
	}
	if e.headerTimeout = o.HeaderTimeout; e.headerTimeout <= 0 {
		e.headerTimeout = headerTimeout
	}
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
		e.flows = make([]atomic.Pointer[splicer], e.splice.MaxFlows())
		// The loop's goroutine isn't running yet, so it can be registered with here.
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
	if o.Offload != nil {
		if err := e.SetOffload(o.Offload); err != nil {
			return nil, errors.Join(err, e.Close())
		}
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

// Close resets what sessions are left, without waiting for anybody, and ends
// the loops. Fronts are to be closed before.
func (e *Engine) Close() error {
	e.closeOnce.Do(func() {
		for _, l := range e.loops {
			l.post(func() {
				l.resetAll(accesslog.Shutdown)
				l.quit = true
			})
		}
		for _, l := range e.loops {
			<-l.done
		}
	})
	return nil
}

// SetMaxSessionFDs replaces Options.MaxSessionFDs. Sessions that are there stay.
func (e *Engine) SetMaxSessionFDs(n int) { e.maxFDs.Store(int64(n)) }

// MaxSessionFDs is the bound in force.
func (e *Engine) MaxSessionFDs() int { return int(e.maxFDs.Load()) }

// Drain does nothing: a session's connection ends with it.
func (e *Engine) Drain() {}

// ResetAll resets every session; each gets its line (200, shutdown).
func (e *Engine) ResetAll() {
	for _, l := range e.loops {
		l.call(func() { l.resetAll(accesslog.Shutdown) })
	}
}

// Cut resets the sessions of these backends (200, removed). They
// are reset when it returns.
func (e *Engine) Cut(gone []*pool.Backend) {
	if len(gone) == 0 {
		return
	}
	set := make(map[*pool.Backend]bool, len(gone))
	for _, b := range gone {
		set[b] = true
	}
	for _, l := range e.loops {
		l.call(func() {
			l.sessions.each(func(s *pair) {
				if s.Backend != nil && set[s.Backend] {
					s.cut(accesslog.Removed)
				}
			})
		})
	}
}

// Flush brings the byte counters of live sessions into those of their
// listeners and backends.
func (e *Engine) Flush() {
	for _, l := range e.loops {
		l.call(func() { l.sessions.each((*pair).flush) })
	}
}

// Flows are the first limit live sessions in this order. The loops copy small
// values only, limit at most each.
func (e *Engine) Flows(limit int, by stats.FlowOrder) []session.Flow {
	var lists [][]session.Flow
	for _, l := range e.loops {
		top := session.NewTop(limit, by)
		l.call(func() {
			l.sessions.newest(func(s *pair) bool { return top.Add(s.flow()) })
		})
		lists = append(lists, top.Flows())
	}
	return session.FirstFlows(lists, limit, by)
}

// errNoFront is for a Bind that has nothing to bind.
var errNoFront = errors.New("neither an IP address nor a unix path to listen on")
