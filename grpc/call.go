// SPDX-License-Identifier: Apache-2.0

package grpc

import (
	"container/list"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sluice/accesslog"
	"sluice/config"
	"sluice/pool"
	"sluice/session"
)

// call is one RPC: a session whose bytes are those of two streams.
//
// mu guards it. Locks are taken in the order of call, peers, link.
type call struct {
	mu sync.Mutex
	session.Session

	client *client
	down   *stream // the client's; never replaced
	up     *stream // of the present attempt; nil: none is open

	request
	fields    []hpack.HeaderField
	fieldsEnd bool // nothing follows the request's headers
	body      body

	idempotent bool // a backend may get it twice, by the route of the last choice
	broadcast  bool

	begun    bool // the backend has begun to answer
	answered bool // its headers have been passed on
	ending   bool // how the answer ends is known, and perhaps under way
	over     bool // End has been called
	reopened bool // the present backend has been tried a second time
	status   int  // gRPC's; -1: there is none
	httpCode int  // $status
	reason   accesslog.EndReason
	fault    string // what the last attempt failed of, for the client

	peers *peers        // in whose queue the call waits; nil: in none
	waits *list.Element // there; under peers.mu
	until int64         // when the attempt has failed for want of time
	timer *time.Timer   // of the attempt, or of a pause
	turn  int           // what was begun in an earlier one means nothing any more

	last    atomic.Int64 // when a byte last came, monotonic ns
	asked   messages     // of the client, where a limit wants them followed
	replied messages
	spread  *spread // nil: the call goes to one backend
}

// start has a new call chosen for. c.mu is held.
func (c *call) start(w *work) {
	c.last.Store(c.Begun())
	c.obey(c.Choose(c, c.Begun()), w)
}

func (c *call) now() int64 { return c.client.eng.clock.Now() }

// conf is what the listener's options say of calls.
func (c *call) conf() *config.GRPC {
	if g := c.Settings.Config.GRPC; g != nil {
		return g
	}
	return &config.GRPC{Connections: 1} // an edit has made the listener one for TCP
}

// Follow implements session.Carrier.
func (c *call) Follow() *session.Settings { return c.client.conn.Settings() }

// Route implements session.Router.
func (c *call) Route(set *session.Settings) *pool.Pool {
	c.idempotent, c.broadcast = c.client.eng.routes.reads[c.path], false
	if set.Calls == nil || set.Config.GRPC == nil {
		return set.Pool
	}
	i := c.client.eng.routes.of(set).match(c.path)
	if i < 0 {
		return set.Pool
	}
	r := &set.Config.GRPC.Routes[i]
	c.idempotent, c.broadcast = c.idempotent || r.Idempotent, r.Broadcast
	return set.Calls.Routes[i]
}

// Everywhere implements session.Router.
func (c *call) Everywhere() bool { return c.broadcast }

// obey does what a verdict asks for.
func (c *call) obey(v session.Verdict, w *work) {
	switch v {
	case session.Picked:
		c.reopened = false
		c.until = c.now() + int64(c.Settings.Config.ConnectTimeout)
		c.attempt(false, w)
	case session.Everywhere:
		c.spreads(w)
	case session.Crowded:
		c.after(crowdPause, func(w *work) { c.obey(c.Again(c, false, c.now()), w) })
	default:
		c.httpCode, c.reason = c.Refusal(v)
		why := "no backend is left to try in pool " + c.Pool().Name()
		if c.fault != "" {
			why += ": " + c.fault
		}
		c.refuse(unavailable, why, w)
	}
}

// attempt has the call opened at the backend that was picked, now or once a
// connection to it has a stream to spare. first: it has waited for its turn.
func (c *call) attempt(first bool, w *work) {
	p := c.client.eng.groupOf(c.Settings).at(c.Backend)
	if up := p.open(c, first, w); up != nil {
		c.opened(up, w)
		return
	}
	c.after(time.Duration(c.until-c.now()), func(w *work) { c.failed(session.BackendFault, "timed out", w) })
	if up := p.await(c, first, w); up != nil {
		c.opened(up, w)
	}
}

// after calls f, with c.mu held, after d, unless the call has gone on by then.
func (c *call) after(d time.Duration, f func(w *work)) {
	c.settle()
	turn := c.turn
	c.timer = time.AfterFunc(max(d, 0), func() {
		w := &work{}
		c.mu.Lock()
		if c.turn == turn && !c.over && !c.ending {
			f(w)
		}
		c.mu.Unlock()
		w.flush()
	})
}

// settle ends what the call waits for.
func (c *call) settle() {
	c.turn++
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	if c.peers != nil {
		c.peers.leave(c)
		c.peers = nil
	}
}

// opened is told that up is the call's stream to its backend, with its headers
// on their way.
func (c *call) opened(up *stream, w *work) {
	c.settle()
	c.up = up
	if !c.reopened {
		c.Reached(c.now())
	}
	if !c.fieldsEnd {
		up.resume(c.body.credited)
		for _, v := range c.body.views {
			v.c.refs.Add(1)
			up.push(c.down, v, nil, &c.client.held, w)
		}
		if c.body.end {
			up.finish(tail{fields: c.body.trailers}, w)
		}
	}
	if c.conf().RetryOff {
		c.forget()
	}
}

// failed puts the attempt under way behind; the next one is made if there may be
// one.
func (c *call) failed(f session.Fault, why string, w *work) {
	t := c.totals()
	c.Moved(t)
	c.fault = c.Target().String() + " " + why
	c.leaveBackend(w)
	v := c.Failed(c, f, why, t, c.now())
	c.obey(v, w)
}

// again makes the attempt under way a second time: its connection was of no use
// any more, of which the backend itself is no proof.
func (c *call) again(why string, w *work) {
	if c.reopened {
		c.failed(session.Declined, why, w)
		return
	}
	c.leaveBackend(w)
	c.reopened = true
	c.until = c.now() + int64(c.Settings.Config.ConnectTimeout)
	c.attempt(false, w)
}

// leaveBackend ends what there is of the present attempt.
func (c *call) leaveBackend(w *work) {
	c.settle()
	if c.up != nil {
		c.body.credited = max(c.body.credited, c.up.gone.get())
		c.up.cancel(http2.ErrCodeCancel, w)
		c.up = nil
	}
	c.First = 0
}

// totals are what the call has moved so far, the payload of DATA frames.
func (c *call) totals() session.Totals {
	t := session.Totals{FromClient: c.down.got.get(), ToClient: c.down.gone.get()}
	if c.up != nil {
		t.FromBackend, t.ToBackend = c.up.got.get(), c.up.gone.get()
	}
	if c.spread != nil {
		c.spread.totals(&t)
	}
	return t
}

// end ends the call as a session, once.
func (c *call) end(w *work) {
	if c.over {
		return
	}
	c.settle()
	c.over = true
	c.forget()
	now := c.now()
	if c.httpCode == 0 {
		c.httpCode = 200
	}
	o := session.Outcome{
		Status: c.httpCode, Reason: c.reason, Totals: c.totals(), Datapath: session.GRPC.String(), ServerPath: c.client.conn.Path,
		UpstreamRetrans: -1, RPC: &accesslog.RPC{Method: c.path, Status: c.status},
	}
	if c.spread != nil {
		c.spread.end(w)
	}
	c.End(&o, &accesslog.Record{}, now)
	if k := c.Settings.Counters.Calls(); k != nil {
		k.Ended(c.status, time.Duration(now-c.Begun()))
	}
	c.client.ended(now)
	c.Left()
}

// flow is the call as /flows shows it; ok false: it has ended.
func (c *call) flow() (f session.Flow, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || c.Settings == nil {
		return f, false
	}
	return c.Flow(c.totals(), session.GRPC, c.last.Load()), true
}

// flush brings what moved into the counters.
func (c *call) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over && c.Settings != nil {
		c.Moved(c.totals())
	}
}
