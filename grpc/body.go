// SPDX-License-Identifier: Apache-2.0

package grpc

import (
	"golang.org/x/net/http2/hpack"

	"sluice/accesslog"
)

// body is what has come of a request's bytes, as long as they may have to be sent
// again: until the answer begins, or they are too many.
type body struct {
	views    []view
	kept     int                 // memory of them that is accounted for
	end      bool                // the request is complete
	trailers []hpack.HeaderField // that it ends with
	lost     bool                // it isn't whole any more
	credited uint64              // bytes whose window has been given back by attempts before
}

// fromClient is told of the client's bytes, and of their end.
func (c *call) fromClient(v view, small []byte, end bool, w *work) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(v.b) + len(small)
	if n > 0 {
		c.last.Store(c.client.link.in.now)
	}
	if c.over || c.ending || !c.allowed(&c.asked, v, small, w) {
		v.release()
		return
	}
	h := &c.client.held
	switch {
	case c.spread != nil:
		c.spread.request(v, small, end, w)
		return
	case n == 0:
	case c.up != nil && c.body.lost:
		c.up.push(c.down, v, small, h, w)
	default:
		if v.c == nil {
			v = newView(small, h)
		}
		c.keep(v)
		if c.up != nil {
			v.c.refs.Add(1)
			c.up.push(c.down, v, nil, h, w)
			c.bound()
		}
	}
	if end {
		c.endRequest(nil, w)
	}
}

// endRequest is told that the client has sent all.
func (c *call) endRequest(trailers []hpack.HeaderField, w *work) {
	c.body.end, c.body.trailers = true, trailers
	if c.up != nil {
		c.up.finish(tail{fields: trailers}, w)
	}
}

// overLimit ends the call because it asks for more than it may have.
func (c *call) overLimit(why string, w *work) {
	c.httpCode, c.reason = 503, accesslog.Limited
	c.abort(resourceExhausted, why, w)
}

// allowed looks at bytes of a message, either way, and ends the call if they are
// more than may be.
func (c *call) allowed(m *messages, v view, small []byte, w *work) bool {
	if c.client.held.over() {
		c.overLimit("too many bytes wait for clients and backends that don't take them", w)
		return false
	}
	most := c.conf().MaxMessage
	if most <= 0 || !c.grpc {
		return true
	}
	if n := max(m.add(v.b), m.add(small)); int64(n) > most {
		c.overLimit("a message of "+bytesText(int64(n))+" is larger than max_message, "+bytesText(most), w)
		return false
	}
	return true
}

// keep has v, whose reference it takes over, sent again if need be.
func (c *call) keep(v view) {
	b := &c.body
	b.views = append(b.views, v)
	b.kept += cap(v.c.b)
	c.client.eng.mem.kept.Add(int64(cap(v.c.b)))
}

// bound gives up what is kept once that is too much.
func (c *call) bound() {
	if c.body.kept > maxKept+maxFrame || c.client.eng.mem.kept.Load() > c.client.eng.mem.most/4 {
		c.forget()
	}
}

// forget lets go what is kept of the request: it can't be sent again, unless it
// has no bytes.
func (c *call) forget() {
	b := &c.body
	b.lost = b.lost || len(b.views) > 0 || !c.fieldsEnd && !b.end
	for _, v := range b.views {
		v.c.release()
	}
	b.views = nil
	c.client.eng.mem.kept.Add(-int64(b.kept))
	b.kept = 0
}

// newView is a copy of b.
func newView(b []byte, h *held) view {
	c := newChunk(len(b), h)
	c.b = append(c.b, b...)
	return view{c, c.b}
}

func (v view) release() {
	if v.c != nil {
		v.c.release()
	}
}
