// SPDX-License-Identifier: Apache-2.0

// Package grpc carries calls: each RPC of a client's HTTP/2 connection is a
// session of its own, with its own pick, over connections to backends that calls
// share. It is a relay of frames: it looks into no message, and passes on what it
// doesn't have to know.
//
// A connection has one goroutine, which reads it and writes what comes of that
// to others; a call has none.
package grpc

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"

	"sluice/accesslog"
	"sluice/internal/mono"
	"sluice/pool"
	"sluice/session"
	"sluice/stats"
)

// Descriptors are those that connections may have together.
type Descriptors interface {
	// TakeDescriptor reserves one; false: there is none to spare.
	TakeDescriptor() bool
	// GiveDescriptor gives it back.
	GiveDescriptor()
}

// Origin is where a client's connection came in.
type Origin interface {
	// Settings are those that its listen address has now. To be called within the
	// generation's lock, or where an older one does no harm.
	Settings() *session.Settings
	// Served says whether that address still is one.
	Served() bool
	// Closed is told that the connection's socket is closed.
	Closed()
}

// Conn is a client's connection that was let in and speaks HTTP/2. Who takes it
// owns FD, a non-blocking socket from which nothing has been read, and calls
// Closed once.
type Conn struct {
	Origin
	*session.Admission
	FD     int
	Server netip.AddrPort // the local end; zero for a unix socket
	Path   string         // of the front, if that is a unix socket
	Peer   netip.Addr     // the other end, whoever a PROXY header says it is; zero for a unix socket
}

// Options configure an Engine.
type Options struct {
	Log         zerolog.Logger
	Sessions    *session.Registry // where the calls belong
	Descriptors Descriptors
	// MaxHeld is about how many bytes may wait here for peers that don't take them,
	// over all calls. 0: 256 MiB.
	MaxHeld int64
}

// Engine owns all connections that carry calls. All methods may be called from
// any goroutine.
type Engine struct {
	log         zerolog.Logger
	clock       mono.Clock
	descriptors Descriptors
	mem         memory
	routes      *routes
	running     sync.WaitGroup // goroutines of connections
	lacks       atomic.Int64   // when a lack was told last

	ctx    context.Context
	cancel context.CancelFunc

	mu       sync.Mutex
	clients  map[*client]struct{}
	backends map[*backend]struct{}
	groups   map[*stats.Listener]*group
	stopped  bool  // new clients are told to go
	closed   bool  // nobody is taken any more
	sweeping bool  // there is a goroutine for it
	lone     int64 // since when there is no client
}

// New makes an engine without connections. Close ends it.
func New(o Options) *Engine {
	e := &Engine{
		log: o.Log, clock: o.Sessions.Clock(), descriptors: o.Descriptors, routes: newRoutes(),
		clients: map[*client]struct{}{}, backends: map[*backend]struct{}{}, groups: map[*stats.Listener]*group{},
	}
	if e.mem.most = o.MaxHeld; e.mem.most <= 0 {
		e.mem.most = maxHeld
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	return e
}

// Take serves a connection to its end. It doesn't wait.
func (e *Engine) Take(c *Conn) {
	e.mu.Lock()
	closed := e.closed
	if !closed {
		e.running.Add(1)
	}
	e.mu.Unlock()
	if closed {
		unix.Close(c.FD)
		c.Closed()
		return
	}
	go e.take(c)
}

func (e *Engine) addClient(c *client) (stopped, closed bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.clients[c] = struct{}{}
	e.startSweep()
	return e.stopped, e.closed
}

func (e *Engine) removeClient(c *client) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.clients, c)
	if len(e.clients) == 0 && !e.closed {
		e.lone = e.clock.Now()
		time.AfterFunc(loneTime, func() { e.sweep(false) })
	}
}

func (e *Engine) addBackend(b *backend) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	e.backends[b] = struct{}{}
	e.startSweep()
	return true
}

func (e *Engine) removeBackend(b *backend) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.backends, b)
}

// groupOf are the connections of the listener that has these settings.
func (e *Engine) groupOf(set *session.Settings) *group {
	e.mu.Lock()
	defer e.mu.Unlock()
	g := e.groups[set.Counters]
	if g == nil {
		g = &group{eng: e, calls: callsOf(set), peers: map[*pool.Backend]*peers{}}
		e.groups[set.Counters] = g
	}
	g.settings = set
	return g
}

// after calls f after d, unless the engine has been closed.
func (e *Engine) after(d time.Duration, f func(w *work)) {
	time.AfterFunc(d, func() {
		w := &work{}
		f(w)
		w.flush()
	})
}

// list are all clients' connections.
func (e *Engine) list() []*client {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]*client, 0, len(e.clients))
	for c := range e.clients {
		out = append(out, c)
	}
	return out
}

// each calls f for each call.
func (e *Engine) each(f func(c *call)) {
	for _, c := range e.list() {
		for _, k := range c.list() {
			f(k)
		}
	}
}

// Flush brings what moved since the last time into the counters.
func (e *Engine) Flush() { e.each((*call).flush) }

// Flows are the first limit live calls in this order.
func (e *Engine) Flows(limit int, by stats.FlowOrder) []session.Flow {
	var flows []session.Flow
	e.each(func(c *call) {
		if f, ok := c.flow(); ok {
			flows = append(flows, f)
		}
	})
	return session.FirstFlows([][]session.Flow{flows}, limit, by)
}

// Cut ends the calls at these backends (removed). Their clients' connections stay.
func (e *Engine) Cut(gone []*pool.Backend) {
	set := make(map[*pool.Backend]bool, len(gone))
	for _, b := range gone {
		set[b] = true
	}
	w := &work{}
	e.each(func(c *call) { c.cut(set, w) })
	w.flush()
}

// CutForbidden ends the connections of clients that the settings of their
// listener, by its name, would not let in (removed).
func (e *Engine) CutForbidden(now map[string]*session.Settings) {
	w := &work{}
	for _, c := range e.list() {
		mine := c.conn.Settings()
		if set := now[mine.Config.Name]; set != nil && !set.Admits(c.conn.Peer) {
			c.stopAll(accesslog.Removed, "the client is not allowed any more", w)
			c.depart(1, w)
		}
	}
	w.flush()
}

// Drain has all clients go: their calls may end by themselves.
func (e *Engine) Drain() {
	e.mu.Lock()
	e.stopped = true
	e.mu.Unlock()
	w := &work{}
	for _, c := range e.list() {
		c.depart(0, w)
	}
	w.flush()
}

// ResetAll ends every call (shutdown), and every connection once its client has
// been told, or doesn't read.
func (e *Engine) ResetAll() {
	e.mu.Lock()
	e.stopped = true
	e.mu.Unlock()
	w := &work{}
	clients := e.list()
	for _, c := range clients {
		c.stopAll(accesslog.Shutdown, "it stops", w)
	}
	w.flush()
	for _, c := range clients {
		c.link.mu.Lock()
		c.state = parting
		last := c.link.nextID
		if !c.link.dead && !c.link.closing {
			c.link.ctl = appendGoAway(c.link.ctl, last, http2.ErrCodeNo, "")
		}
		c.link.mu.Unlock()
		c.link.finishing(0, http2.ErrCodeNo, "", w)
	}
	w.flush()
	for end := time.Now().Add(resetTime); time.Now().Before(end) && len(e.list()) > 0; {
		time.Sleep(time.Millisecond)
	}
	for _, c := range e.list() {
		c.link.fail(errClosed, w)
	}
	w.flush()
}

// Close ends all connections, without waiting for anybody.
func (e *Engine) Close() error {
	e.ResetAll()
	e.mu.Lock()
	e.closed = true
	backends := make([]*backend, 0, len(e.backends))
	for b := range e.backends {
		backends = append(backends, b)
	}
	e.mu.Unlock()
	e.cancel()
	w := &work{}
	for _, b := range backends {
		b.link.fail(errClosed, w)
	}
	for _, c := range e.list() {
		c.link.fail(errClosed, w)
	}
	w.flush()
	e.running.Wait()
	return nil
}

// cut ends the call if it is at one of these backends.
func (c *call) cut(gone map[*pool.Backend]bool, w *work) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.Backend != nil && gone[c.Backend] || c.spread != nil && c.spread.at(gone) {
		c.stopLocked(accesslog.Removed, "its backend has been removed", w)
	}
}

// tellLack writes why a backend couldn't be dialled for a lack of ours, once a
// second at most.
func (e *Engine) tellLack(listener, backend string, errno unix.Errno) {
	now := e.clock.Now()
	last := e.lacks.Load()
	if last != 0 && now-last < int64(time.Second) || !e.lacks.CompareAndSwap(last, now) {
		return
	}
	e.log.Warn().Str("listener", listener).Str("backend", backend).Str("error", errno.Error()).
		Msg("a backend can't be dialled for a lack of this host's: " + session.LackHint(errno))
}
