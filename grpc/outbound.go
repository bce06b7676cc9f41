// SPDX-License-Identifier: Apache-2.0

package grpc

import (
	"bytes"

	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"
)

// outbound is what is being written: a batch of frames, put together while the
// link's lock is held and written while it isn't.
type outbound struct {
	arena   []byte   // frame headers, control frames, small payloads
	pieces  []piece  // in the order of the wire
	parts   [][]byte // what of the batch isn't written yet
	base    [][]byte // where parts are
	refs    []*chunk // to be given back once the batch is written
	credits []credit
	ends    []ending // whose calls have to be told before their ends go out
}

// piece is a part of the arena, or bytes of a chunk.
type piece struct {
	from, to int
	b        []byte
}

// ending is the end of an answer whose bytes have all been taken.
type ending struct {
	s    *stream
	tail tail
}

// credit is what has left of a stream's bytes.
type credit struct {
	s *stream
	n int64
}

// keepArena is how much of an arena is kept while nothing is written.
const keepArena = 4 << 10

// flush writes what the link has, unless somebody does.
func (l *link) flush(w *work) {
	l.mu.Lock()
	if l.writing || l.dead || l.idle() {
		l.mu.Unlock()
		return
	}
	l.writing = true
	l.mu.Unlock()
	l.write(w)
}

// idle says whether there is nothing to write. Under l.mu.
func (l *link) idle() bool {
	return len(l.ctl) == 0 && l.first == nil && !l.closing
}

// write writes batches until there is nothing left. A socket without room gets a
// goroutine of its own.
func (l *link) write(w *work) {
	for l.compose(w) {
		left, err := l.sock.send(l.out.parts, false)
		if err == unix.EAGAIN {
			l.out.parts = left
			l.eng.running.Add(1)
			go l.writeSlowly()
			return
		}
		if l.batchWritten(err, w); err != nil {
			return
		}
	}
}

// writeSlowly writes on, with the batch that is there, and waits for room.
func (l *link) writeSlowly() {
	defer l.eng.running.Done()
	w := &work{}
	for {
		_, err := l.sock.send(l.out.parts, true)
		l.batchWritten(err, w)
		if err != nil {
			w.flush()
			return
		}
		if !l.compose(w) {
			w.flush()
			return
		}
		w.flush() // others: this link is being written
	}
}

// batchWritten gives back what the batch was made of.
func (l *link) batchWritten(err error, w *work) {
	o := &l.out
	for i, c := range o.refs {
		c.release()
		o.refs[i] = nil
	}
	o.refs = o.refs[:0]
	clear(o.base)
	o.base, o.parts = o.base[:0], nil
	if err != nil {
		clear(o.credits)
		o.credits = o.credits[:0]
		l.fail(err, w)
		return
	}
	for i, c := range o.credits {
		c.s.credit(c.n, w)
		o.credits[i] = credit{}
	}
	o.credits = o.credits[:0]
}

// compose puts the next batch together. False: there is none, and nobody is
// writing any more.
func (l *link) compose(w *work) bool {
	o := &l.out
	o.arena, o.pieces = o.arena[:0], o.pieces[:0]
	l.mu.Lock()
	for budget := batchSize; ; {
		l.takeControl()
		budget = l.takeStreams(budget, w)
		if len(o.ends) == 0 {
			break
		}
		l.mu.Unlock()
		for i, e := range o.ends {
			e.s.call.delivered(e.tail, w)
			o.ends[i] = ending{}
		}
		o.ends = o.ends[:0]
		l.mu.Lock()
	}
	if l.dead || len(o.pieces) == 0 {
		l.stopWriting()
		return false
	}
	l.written = l.nextID
	l.mu.Unlock()
	for _, p := range o.pieces {
		if p.b == nil {
			p.b = o.arena[p.from:p.to]
		}
		o.base = append(o.base, p.b)
	}
	o.parts = o.base
	clear(o.pieces)
	return true
}

// stopWriting unlocks l.mu: nobody is writing any more.
func (l *link) stopWriting() {
	l.writing = false
	o := &l.out
	for _, c := range o.refs {
		c.release()
	}
	clear(o.refs)
	clear(o.credits)
	o.refs, o.credits = o.refs[:0], o.credits[:0]
	if cap(o.arena) > keepArena {
		o.arena = nil
	}
	if cap(l.ctl) > keepArena {
		l.ctl = nil
	}
	if l.encoded.Cap() > keepArena {
		l.encoded = bytes.Buffer{}
	}
	finish := l.closing && !l.dead
	l.mu.Unlock()
	if finish {
		l.sock.finish()
	}
}

// takeControl takes the control frames. Under l.mu.
func (l *link) takeControl() {
	if len(l.ctl) > 0 {
		l.out.put(l.ctl)
		l.ctl = l.ctl[:0]
	}
}

// put copies b.
func (o *outbound) put(b []byte) {
	from := len(o.arena)
	o.arena = append(o.arena, b...)
	o.extend(from)
}

// extend makes what has been appended to the arena from there a piece.
func (o *outbound) extend(from int) {
	if n := len(o.pieces); n > 0 && o.pieces[n-1].b == nil && o.pieces[n-1].to == from {
		o.pieces[n-1].to = len(o.arena)
		return
	}
	o.pieces = append(o.pieces, piece{from: from, to: len(o.arena)})
}

// takeStreams takes DATA frames of the streams in turn, and what follows a
// stream's bytes, and returns what is left of the budget. Under l.mu.
func (l *link) takeStreams(budget int, w *work) int {
	for l.first != nil && budget > 0 {
		s := l.unlist()
		if s.queue.n > 0 && l.window <= 0 && !s.shutOut {
			s.listed = true // not again before the connection's window opens
			l.stalled = append(l.stalled, s)
			continue
		}
		if s.shutOut {
			continue
		}
		if s.queue.n > 0 {
			budget -= l.takeData(s, w)
		}
		if s.queue.n == 0 && s.tail.set && !s.shutOut {
			l.takeTail(s, w)
		}
		l.list(s)
	}
	return budget
}

// takeData takes one DATA frame of s. Under l.mu.
func (l *link) takeData(s *stream, w *work) int {
	o := &l.out
	n := int(min(int64(s.queue.n), s.sendWin, l.window, int64(min(l.frame, maxFrame))))
	if n <= 0 {
		return 0
	}
	var flags http2.Flags
	if n == s.queue.n && s.tail.set && s.tail.fields == nil && !s.tail.rst && !s.tail.call {
		flags = http2.FlagDataEndStream
	}
	from := len(o.arena)
	o.arena = appendFrameHeader(o.arena, n, http2.FrameData, flags, s.id)
	o.extend(from)
	for left := n; left > 0; {
		v, _ := s.queue.first(left)
		left -= len(v.b)
		if len(v.b) <= copyBelow {
			o.put(v.b)
			v.c.release()
			continue
		}
		o.pieces = append(o.pieces, piece{b: v.b})
		o.refs = append(o.refs, v.c)
	}
	s.sendWin -= int64(n)
	l.window -= int64(n)
	l.credits = min(l.credits+int64(n)/creditBytes, creditMost)
	s.gone.add(n)
	if back := n - int(min(uint64(n), s.skip)); s.src != nil && back > 0 {
		o.credits = append(o.credits, credit{s.src, int64(back)})
	}
	s.skip -= min(uint64(n), s.skip)
	if flags != 0 {
		l.shut(s, false, true, w)
	}
	return n + frameHeader
}

// takeTail takes what follows a stream's bytes. Under l.mu.
func (l *link) takeTail(s *stream, w *work) {
	o := &l.out
	if s.tail.call {
		o.ends = append(o.ends, ending{s, s.tail})
		s.tail = tail{} // until the call has been told
		return
	}
	from := len(o.arena)
	switch {
	case s.tail.rst:
		o.arena = appendReset(o.arena, s.id, s.tail.code)
		o.extend(from)
		s.shutIn = true
	case s.tail.fields != nil:
		o.arena = appendHeaders(o.arena, s.id, l.encode(s.tail.fields), true, l.frame)
		o.extend(from)
	default:
		o.arena = appendFrameHeader(o.arena, 0, http2.FrameData, http2.FlagDataEndStream, s.id)
		o.extend(from)
	}
	if s.call.down == s && !s.shutIn {
		// The answer is whole and the request isn't: nobody wants the rest.
		from = len(o.arena)
		o.arena = appendReset(o.arena, s.id, http2.ErrCodeNo)
		o.extend(from)
		s.shutIn = true
	}
	l.shut(s, false, true, w)
}
