// SPDX-License-Identifier: Apache-2.0

package grpc

import (
	"errors"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sluice/accesslog"
	"sluice/session"
	"sluice/stats"
)

// leaving is how far a client's connection is on its way to its end.
type leaving uint8

const (
	staying leaving = iota
	warned          // told that it goes, and new calls are still taken
	parting         // told which call was the last
)

// pingData is that of the ping between the two GOAWAYs.
const pingData = "sluice.."

// client is a client's connection.
type client struct {
	eng   *Engine
	conn  *Conn
	link  *link
	calls *stats.Calls // that it is counted in
	held  held
	since int64 // when it came

	idle  atomic.Int64 // when the last call ended
	state leaving      // under link.mu
	until int64        // parting: when its calls end at the latest; 0: they may take their time; under link.mu
	final uint32       // parting: the last stream; under link.mu
}

// take serves a connection to its end.
func (e *Engine) take(conn *Conn) {
	defer e.running.Done()
	set := conn.Settings()
	sock, err := newSocket(conn.FD, &e.mem)
	if err != nil {
		e.log.Error().Err(err).Msg("cannot serve a client's connection")
		conn.Closed()
		return
	}
	c := &client{eng: e, conn: conn, calls: callsOf(set), since: e.clock.Now()}
	c.held.mem = &e.mem
	c.idle.Store(c.since)
	c.link = newLink(e, sock, c, true)
	if d := set.Config.DeadPeer; d > 0 && conn.Path == "" {
		sock.userTimeout(d)
	}
	c.link.ctl = appendSettings(c.link.ctl,
		http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: maxCalls},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxHeaderList})
	c.link.ctl = appendWindowUpdate(c.link.ctl, 0, connWindow-firstWindow)
	c.calls.Clients.Add(1)
	w := &c.link.in.w
	stopped, closed := e.addClient(c)
	if stopped {
		c.depart(0, w)
	}
	if closed {
		c.link.fail(errClosed, w)
	}
	w.add(c.link)
	if err := c.link.in.preface(); err != nil {
		c.link.fail(err, w)
		w.flush()
		c.link.sock.letGo()
		return
	}
	c.link.run()
}

// preface reads the client's.
func (in *inbound) preface() error {
	b := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(in, b); err != nil {
		return err
	}
	if string(b) != http2.ClientPreface {
		return errPreface
	}
	return nil
}

var errPreface = errors.New("not HTTP/2's preface")

// callsOf are the counters of calls of a listener.
func callsOf(set *session.Settings) *stats.Calls {
	if k := set.Counters.Calls(); k != nil {
		return k
	}
	return &stats.Calls{} // the address has passed to a listener that never had calls
}

func (c *client) headers(id uint32, fields []hpack.HeaderField, end bool, b *block, w *work) error {
	l := c.link
	l.mu.Lock()
	s := l.streams[id]
	fresh := s == nil && id > l.nextID
	late := fresh && c.state == parting
	calls := len(l.streams)
	shut := s != nil && s.shutIn
	if s != nil && end && b.bad == nil {
		l.shut(s, true, false, w)
	}
	if fresh {
		l.nextID = id
	}
	l.mu.Unlock()
	bad := func(code http2.ErrCode) error { return http2.StreamError{StreamID: id, Code: code} }
	switch {
	case id&1 == 0:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case shut:
		return bad(http2.ErrCodeStreamClosed)
	case s != nil:
		if b.bad != nil || noPseudo(fields) != nil || !end {
			return bad(http2.ErrCodeProtocol)
		}
		s.call.trailers(fields, b.large, w)
		return nil
	case !fresh || late:
		return l.in.spend(costReset) // of a call that is over
	case b.bad != nil:
		return bad(http2.ErrCodeProtocol)
	case b.large:
		c.tooLarge(id, end, w)
		return l.in.spend(costReset)
	case calls >= maxCalls:
		return bad(http2.ErrCodeRefusedStream)
	}
	r, err := readRequest(fields)
	if err != nil {
		return bad(http2.ErrCodeProtocol)
	}
	c.open(id, r, fields, end, w)
	return nil
}

// open begins a call.
func (c *client) open(id uint32, r request, fields []hpack.HeaderField, end bool, w *work) {
	l := c.link
	k := &call{client: c, request: r, fields: fields, fieldsEnd: end, status: -1}
	k.mu.Lock() // nobody is to find one without settings
	k.BeginCall(c.conn.Admission, l.in.now)
	k.Server = c.conn.Server
	l.mu.Lock()
	s := l.newStream(id, k)
	s.shutIn = end
	k.down = s
	dead := l.dead
	if !dead {
		l.streams[id] = s
	}
	l.mu.Unlock()
	k.body.end = end
	k.start(w)
	k.mu.Unlock()
	if dead {
		k.gone(accesslog.ClientReset, http2.ErrCodeCancel, w)
	}
}

// tooLarge answers a call whose metadata are too many.
func (c *client) tooLarge(id uint32, end bool, w *work) {
	l := c.link
	l.mu.Lock()
	defer l.mu.Unlock()
	l.putHeaders(id, statusFields(resourceExhausted, "sluice: metadata of more than "+bytesText(maxHeaderList), false), true)
	if !end {
		l.ctl = appendReset(l.ctl, id, http2.ErrCodeNo)
	}
	w.add(l)
}

func (c *client) data(s *stream, v view, small []byte, end bool, w *work) {
	s.call.fromClient(v, small, end, w)
}

func (c *client) reset(s *stream, code http2.ErrCode, w *work) {
	s.call.gone(accesslog.Cancelled, code, w)
}

func (c *client) broken(s *stream, w *work) {
	s.call.gone(accesslog.ClientReset, http2.ErrCodeCancel, w)
}

func (c *client) setting(http2.Setting) {}

func (c *client) ready(*work) {}

// goAway of a client says that it takes no streams of ours, which has none.
func (c *client) goAway(uint32, http2.ErrCode, *work) {}

// ended is told that a call has ended.
func (c *client) ended(now int64) { c.idle.Store(now) }

// depart tells the client to go: a warning first, and once that has arrived, or
// can be taken for lost, which call was the last one. most is how long its calls
// may take then; 0: as long as they want.
func (c *client) depart(most time.Duration, w *work) {
	l := c.link
	l.mu.Lock()
	if most > 0 {
		if at := c.eng.clock.Now() + int64(most); c.until == 0 || at < c.until {
			c.until = at
		}
	}
	if c.state != staying || l.dead {
		l.mu.Unlock()
		return
	}
	c.state = warned
	l.ctl = appendGoAway(l.ctl, 1<<31-1, http2.ErrCodeNo, "")
	l.ctl = appendPing(l.ctl, false, [8]byte([]byte(pingData)))
	l.mu.Unlock()
	w.add(l)
	c.eng.after(roundTrip, c.part)
}

func (c *client) pong(w *work) { c.part(w) }

// part tells the client which call was the last one.
func (c *client) part(w *work) {
	l := c.link
	l.mu.Lock()
	if c.state != warned || l.dead {
		l.mu.Unlock()
		return
	}
	c.state, c.final = parting, l.nextID
	l.ctl = appendGoAway(l.ctl, c.final, http2.ErrCodeNo, "")
	none := len(l.streams) == 0
	l.mu.Unlock()
	w.add(l)
	if none {
		l.finishing(0, http2.ErrCodeNo, "", w)
	}
}

func (c *client) freed(w *work) {
	l := c.link
	l.mu.Lock()
	done := c.state == parting && len(l.streams) == 0
	l.mu.Unlock()
	if done {
		l.finishing(0, http2.ErrCodeNo, "", w)
	}
}

func (c *client) lost(streams []*stream, _ uint32, err error, w *work) {
	reason := accesslog.ClientReset
	if errors.Is(err, io.EOF) {
		reason = accesslog.ClientClosed
	}
	for _, s := range streams {
		s.call.gone(reason, http2.ErrCodeCancel, w)
	}
	c.calls.Clients.Add(-1)
	c.eng.removeClient(c)
	c.conn.Closed()
}

// list are the connection's calls.
func (c *client) list() []*call {
	l := c.link
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]*call, 0, len(l.streams))
	for _, s := range l.streams {
		out = append(out, s.call)
	}
	return out
}

// stopAll ends all calls.
func (c *client) stopAll(reason accesslog.EndReason, why string, w *work) {
	for _, k := range c.list() {
		k.stop(reason, why, w)
	}
}

// sweep sees to what is due of the connection and its calls, and returns when to
// look again; 0: nothing is due by itself.
func (c *client) sweep(now int64, w *work) (next int64) {
	soonest := func(at int64) {
		if next == 0 || at < next {
			next = at
		}
	}
	conf := c.conn.Settings().Config
	calls := c.list()
	for _, k := range calls {
		if at := k.expire(now, w); at != 0 {
			soonest(at)
		}
	}
	l := c.link
	l.mu.Lock()
	state, until := c.state, c.until
	l.mu.Unlock()
	switch {
	case state != staying:
		if until != 0 && now >= until {
			c.stopAll(accesslog.MaxAge, "the connection is too old", w)
		} else if until != 0 {
			soonest(until)
		}
		return next
	case !c.conn.Served() || conf.GRPC == nil:
		c.depart(0, w)
		return next
	}
	if d := conf.MaxAge; d > 0 {
		if at := c.since + int64(d); now >= at {
			c.depart(c.drain(), w)
			return next
		} else {
			soonest(at)
		}
	}
	if d := conf.IdleTimeout; d > 0 && len(calls) == 0 {
		if at := c.idle.Load() + int64(d); now >= at {
			c.depart(0, w)
		} else {
			soonest(at)
		}
	}
	return next
}

// drain is how long the calls of a connection that is too old may take. 0 in the
// file: none at all.
func (c *client) drain() time.Duration {
	if k := c.conn.Settings().Calls; k != nil {
		return max(k.Drain, 1)
	}
	return 1
}

// expire ends the call if no byte has come for too long; else it returns when
// that will be so, 0: never.
func (c *call) expire(now int64, w *work) (at int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || c.Settings == nil || c.Settings.Config.IdleTimeout <= 0 {
		return 0
	}
	d := c.Settings.Config.IdleTimeout
	if at = c.last.Load() + int64(d); now < at {
		return at
	}
	c.stopLocked(accesslog.IdleTimeout, "no byte for "+d.String(), w)
	return 0
}

// trailers is told of the trailers of a request.
func (c *call) trailers(fields []hpack.HeaderField, large bool, w *work) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.over || c.ending:
	case large:
		c.overLimit("metadata of more than "+bytesText(maxHeaderList), w)
	case c.spread != nil:
		c.spread.request(view{}, nil, true, w)
	default:
		c.endRequest(fields, w)
	}
}

// largeAnswer ends a call whose answer has too many metadata.
func (c *call) largeAnswer(up *stream, w *work) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.spread != nil {
		c.spread.failed(up, "metadata of more than "+bytesText(maxHeaderList), w)
	} else if c.up == up && !c.over && !c.ending {
		c.overLimit(c.Target().String()+" answers with metadata of more than "+bytesText(maxHeaderList), w)
	}
}
