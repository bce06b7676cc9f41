// SPDX-License-Identifier: Apache-2.0

package grpc

import (
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sluice/accesslog"
	"sluice/pool"
	"sluice/session"
)

// spread is a unary call that goes to every backend of its pool. The request is
// held until it is whole and known to be one message; then each backend gets it.
// All are awaited. The answer is that of the first of them, in the file's order,
// if all succeed, else the failure of the first that failed. Its methods are
// called with the call's lock held.
type spread struct {
	c     *call
	size  int // of the request
	count messages
	legs  []*leg
	open  int // legs that aren't over
	sent  bool
}

// leg is the call at one backend.
type leg struct {
	*session.Leg
	n      int // its place
	p      *peers
	up     *stream
	turn   int
	timer  *time.Timer
	header []hpack.HeaderField // of its answer, if trailers follow
	end    []hpack.HeaderField // trailers, or trailers-only
	body   queue               // of the answer; kept for the first leg alone
	failed string              // why there is no answer
	code   int
	over   bool
}

// spreads has the call go to all backends of its pool.
func (c *call) spreads(w *work) {
	s := &spread{c: c}
	c.spread = s
	for i, l := range c.Legs() {
		s.legs = append(s.legs, &leg{Leg: l, n: i, code: unavailable})
	}
	s.open = len(s.legs)
	if c.fieldsEnd {
		s.send(w)
	}
}

// request is told of the client's bytes.
func (s *spread) request(v view, small []byte, end bool, w *work) {
	c := s.c
	n := len(v.b) + len(small)
	if n > 0 {
		s.count.add(v.b)
		s.count.add(small)
		if v.c == nil {
			v = newView(small, &c.client.held)
		}
		c.body.views = append(c.body.views, v)
		c.down.credit(int64(n), w) // it is held whole, whatever the window
		s.size += n
	}
	switch {
	case s.count.count > 1:
		c.reason, c.httpCode = accesslog.Limited, 503
		c.abort(unimplemented, "a call that goes to all backends has one message, not several", w)
	case s.size > maxBroadcast:
		c.overLimit("a call that goes to all backends has "+bytesText(maxBroadcast)+" at most", w)
	case end:
		c.body.end = true
		s.send(w)
	}
}

// send has each backend get the request.
func (s *spread) send(w *work) {
	s.sent = true
	for _, l := range s.legs {
		s.attempt(l, false, w)
	}
}

// attempt opens a leg, now or once there is a stream for it.
func (s *spread) attempt(l *leg, first bool, w *work) {
	c := s.c
	if l.over || c.over || c.ending {
		return
	}
	l.p = c.client.eng.groupOf(c.Settings).at(l.Backend)
	l.settle()
	if up := l.p.awaitLeg(c, waiter{c, l.turn, l.n}, first, w); up != nil {
		s.opened(l, up, w)
		return
	}
	if l.timer == nil {
		l.timer = time.AfterFunc(c.Settings.Config.ConnectTimeout, func() {
			w := &work{}
			c.mu.Lock()
			if l.up == nil {
				s.unreached(l.n, l.turn, session.BackendFault, "timed out", w)
			}
			c.mu.Unlock()
			w.flush()
		})
	}
}

// settle has what was begun earlier mean nothing.
func (l *leg) settle() { l.turn++ }

func (l *leg) stopTimer() {
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
}

// woken is told that there may be a stream for a leg.
func (s *spread) woken(n, turn int, w *work) {
	if l := s.legs[n]; l.turn == turn && l.up == nil {
		s.attempt(l, true, w)
	}
}

// opened sends a leg its request.
func (s *spread) opened(l *leg, up *stream, w *work) {
	l.settle()
	l.stopTimer()
	l.up = up
	l.Reached(s.c.now())
	up.resume(^uint64(0)) // its window has been given back already
	for _, v := range s.c.body.views {
		v.c.refs.Add(1)
		up.push(s.c.down, v, nil, &s.c.client.held, w)
	}
	if !s.c.fieldsEnd {
		up.finish(tail{}, w)
	}
}

// of is the leg of a stream; nil: it is over.
func (s *spread) of(up *stream) *leg {
	for _, l := range s.legs {
		if l.up == up && !l.over {
			return l
		}
	}
	return nil
}

// headers is told of a header block of a backend's.
func (s *spread) headers(up *stream, fields []hpack.HeaderField, end bool, w *work) {
	l := s.of(up)
	if l == nil {
		return
	}
	if l.First == 0 {
		l.First = s.c.now()
	}
	var err error
	interim := false
	if l.header == nil {
		interim, err = checkResponse(fields)
	} else if err = noPseudo(fields); err == nil && !end {
		err = errPseudo
	}
	switch {
	case err != nil || interim && end:
		s.failed(up, "broke the rules of HTTP/2", w)
	case end:
		l.end = fields
		l.code = statusOf(fields)
		s.done(l, w)
	case !interim:
		l.header = fields
	}
}

// reply is told of bytes of an answer.
func (s *spread) reply(up *stream, v view, small []byte, end bool, w *work) {
	l := s.of(up)
	if l == nil {
		v.release()
		return
	}
	n := len(v.b) + len(small)
	if l.n == 0 && n > 0 {
		if v.c == nil {
			v = newView(small, &s.c.client.held)
		}
		l.body.add(v)
	} else {
		v.release()
	}
	up.credit(int64(n), w)
	switch {
	case l.body.n > maxBroadcast || s.c.client.held.over():
		s.failed(up, "answers with more than "+bytesText(maxBroadcast), w)
	case end:
		s.failed(up, "ends without a status", w)
	}
}

// failed is told that a leg has no answer.
func (s *spread) failed(up *stream, why string, w *work) {
	if l := s.of(up); l != nil {
		l.failed, l.code, l.end = why, unavailable, nil
		s.done(l, w)
	}
}

// unreached is told that a leg's backend can't be had.
func (s *spread) unreached(n, turn int, f session.Fault, why string, w *work) {
	l := s.legs[n]
	if l.turn != turn || l.over {
		return
	}
	l.failed = why
	l.settle()
	l.Failed(f, why, session.Totals{}, s.c.now())
	s.done(l, w)
}

// done ends a leg; the last one's end is the call's.
func (s *spread) done(l *leg, w *work) {
	s.close(l, http2.ErrCodeNo, w)
	if s.open > 0 || s.c.over || s.c.ending {
		return
	}
	first := s.legs[0]
	for _, l := range s.legs {
		if l.code != 0 || l.end == nil {
			first = l
			break
		}
	}
	s.answer(first, w)
}

// answer gives the client what a leg has got.
func (s *spread) answer(l *leg, w *work) {
	c := s.c
	if l.end == nil {
		c.httpCode, c.reason = 200, accesslog.BackendReset
		if l.up == nil {
			c.httpCode, c.reason = 502, accesslog.ConnectFailed
		}
		c.refuse(unavailable, l.Backend.Addr.String()+" "+l.failed, w)
		return
	}
	if l.header != nil {
		c.answered = true
		c.down.headers(l.header, w)
		if l.code == 0 {
			for _, v := range l.body.views {
				c.down.push(nil, v, nil, &c.client.held, w)
			}
			l.body = queue{}
		}
	}
	c.answerEnds(tail{fields: l.end}, l.code, w)
}

// close ends what there is of a leg.
func (s *spread) close(l *leg, code http2.ErrCode, w *work) {
	if l.over {
		return
	}
	l.over = true
	l.settle()
	l.stopTimer()
	s.open--
	var t session.Totals
	if l.up != nil {
		l.up.cancel(code, w)
		t.FromBackend, t.ToBackend = l.up.got.get(), l.up.gone.get()
	}
	l.Done(t, s.c.now())
}

// cancel ends all legs.
func (s *spread) cancel(code http2.ErrCode, w *work) {
	for _, l := range s.legs {
		s.close(l, code, w)
	}
}

// end gives back what is held.
func (s *spread) end(w *work) {
	s.cancel(http2.ErrCodeCancel, w)
	for _, l := range s.legs {
		l.body.clear()
	}
}

// totals leaves out the backends' bytes: each leg has its own.
func (s *spread) totals(*session.Totals) {}

// at says whether a leg is at one of these backends.
func (s *spread) at(gone map[*pool.Backend]bool) bool {
	for _, l := range s.legs {
		if !l.over && gone[l.Backend] {
			return true
		}
	}
	return false
}
