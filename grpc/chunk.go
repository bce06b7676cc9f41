// SPDX-License-Identifier: Apache-2.0

package grpc

import (
	"sync"
	"sync/atomic"
)

// chunk is a piece of memory with bytes of DATA frames. It is filled by the one
// who reads a stream, and given back when nobody refers to it any more.
type chunk struct {
	b    []byte // its size is the capacity
	refs atomic.Int32
	held *held
}

// memory is what the connections of an engine use together.
type memory struct {
	chunks [len(chunkSizes)]sync.Pool // free ones, by size
	reads  sync.Pool                  // free buffers to read into
	most   int64                      // bytes in chunks that may be in use, see maxHeld
	all    atomic.Int64               // that are
	kept   atomic.Int64               // of those, of requests that may be sent again
}

// held counts the memory that waits for somebody to take it: of a client's
// connection, both ways.
type held struct {
	conn atomic.Int64
	mem  *memory
}

// over says whether no more may be held.
func (h *held) over() bool {
	all, most := h.mem.all.Load(), h.mem.most
	return all > 2*most || all > most && h.conn.Load() > most/32
}

// chunkSizes are those that there are, rising.
var chunkSizes = [...]int{512, 4 << 10, maxFrame}

// newChunk is an empty chunk with room for n bytes, maxFrame at most, and one
// reference.
func newChunk(n int, h *held) *chunk {
	i := 0
	for chunkSizes[i] < n {
		i++
	}
	c, _ := h.mem.chunks[i].Get().(*chunk)
	if c == nil {
		c = &chunk{b: make([]byte, 0, chunkSizes[i])}
	}
	c.b, c.held = c.b[:0], h
	c.refs.Store(1)
	h.conn.Add(int64(cap(c.b)))
	h.mem.all.Add(int64(cap(c.b)))
	return c
}

func (c *chunk) release() {
	if c.refs.Add(-1) > 0 {
		return
	}
	h, n := c.held, cap(c.b)
	c.held = nil
	h.conn.Add(-int64(n))
	h.mem.all.Add(-int64(n))
	for i, size := range chunkSizes {
		if size == n {
			h.mem.chunks[i].Put(c)
			return // it may be somebody's already
		}
	}
}

// view is a part of a chunk, to which it has a reference.
type view struct {
	c *chunk
	b []byte
}

// queue is bytes in order.
type queue struct {
	views []view
	n     int
}

// add appends v, whose reference the queue takes over.
func (q *queue) add(v view) {
	q.views = append(q.views, v)
	q.n += len(v.b)
}

// join appends b to the last chunk if that has room and nobody else appends to it.
func (q *queue) join(b []byte) bool {
	if len(q.views) == 0 {
		return false
	}
	last := &q.views[len(q.views)-1]
	c := last.c
	used := len(c.b)
	if cap(c.b)-used < len(b) || c.refs.Load() != 1 || len(last.b) == 0 || &last.b[len(last.b)-1] != &c.b[used-1] {
		return false
	}
	c.b = append(c.b, b...)
	last.b = c.b[used-len(last.b) : len(c.b)]
	q.n += len(b)
	return true
}

// first is the first view, cut to n bytes: taken says that it is the whole one
// and the caller's; else it refers to what is still the queue's.
func (q *queue) first(n int) (v view, taken bool) {
	f := &q.views[0]
	if len(f.b) <= n {
		v = *f
		*f = view{}
		if q.views = q.views[1:]; len(q.views) == 0 {
			q.views = nil
		}
		q.n -= len(v.b)
		return v, true
	}
	v = view{f.c, f.b[:n]}
	f.c.refs.Add(1)
	f.b = f.b[n:]
	q.n -= n
	return v, false
}

// clear gives all back.
func (q *queue) clear() {
	for _, v := range q.views {
		v.c.release()
	}
	*q = queue{}
}
