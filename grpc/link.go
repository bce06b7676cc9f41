// SPDX-License-Identifier: Apache-2.0

package grpc

import (
	"bytes"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// side is what a connection does with what it reads: a client's opens calls, a
// backend's answers them. Its methods are called by the link's reader, without
// its lock.
type side interface {
	// headers is told of a whole header block. An error is the connection's end,
	// or of type http2.StreamError.
	headers(id uint32, fields []hpack.HeaderField, end bool, b *block, w *work) error
	// data is told of bytes of a stream that is open, which belong to v if that
	// isn't empty, else are good during the call. It takes v's reference over.
	data(s *stream, v view, small []byte, end bool, w *work)
	// reset is told that the peer has reset a stream.
	reset(s *stream, code http2.ErrCode, w *work)
	// broken is told that a stream has been reset for a fault of the peer.
	broken(s *stream, w *work)
	// settings is told of a setting that is no link's business.
	setting(s http2.Setting)
	// ready is told that the peer's first SETTINGS have come.
	ready(w *work)
	// pong is told that our ping was answered.
	pong(w *work)
	// goAway is told that the peer takes no streams after last.
	goAway(last uint32, code http2.ErrCode, w *work)
	// freed is told that a stream has gone, or several.
	freed(w *work)
	// lost is told that the connection has ended, with the streams it had.
	// written: those from this number on have never left.
	lost(streams []*stream, written uint32, err error, w *work)
}

// link is one HTTP/2 connection, from whichever side. One goroutine reads it
// (run); who has put something into it writes it at the end of a round of
// reading (work), and a goroutine of its own only while the socket has no room.
//
// mu is the last lock that anybody takes: a call's may be held with it.
type link struct {
	eng    *Engine
	sock   *socket
	side   side
	client bool // the peer opens the streams

	in inbound // the reader's

	mu      sync.Mutex
	enc     *hpack.Encoder
	encoded bytes.Buffer
	ctl     []byte // frames that no window holds up, in order
	streams map[uint32]*stream
	first   *stream // those with something to send and a window for it
	last    *stream
	stalled []*stream // those that wait for the connection's window
	window  int64     // what the peer takes on the connection
	initial int64     // of the peer's new streams
	frame   int       // the largest that the peer takes
	nextID  uint32
	written uint32 // the last stream whose HEADERS may have gone out
	writing bool   // somebody is
	dead    bool   // closed
	closing bool   // our FIN follows what is to be written
	err     error
	credits int64 // for frames that do nothing for a call, see creditMost
	paid    int64 // when time last earned some

	out outbound // of who is writing
}

// newLink makes a link of a socket, which it takes over.
func newLink(e *Engine, sock *socket, s side, client bool) *link {
	l := &link{eng: e, sock: sock, side: s, client: client, streams: map[uint32]*stream{}, window: firstWindow, initial: firstWindow, frame: maxFrame}
	l.enc = hpack.NewEncoder(&l.encoded)
	l.credits, l.paid = creditMost, e.clock.Now()
	l.in.init(l)
	return l
}

// stream is one end of a call on a link.
type stream struct {
	l    *link
	id   uint32
	call *call
	got  counter // payload bytes that have come
	gone counter // payload bytes that have left

	// The rest is under l.mu.
	queue   queue
	src     *stream // whose bytes leave here: its window grows as they do
	sendWin int64
	skip    uint64 // of what leaves the window has been given back already
	tail    tail   // what follows the queue
	listed  bool
	next    *stream
	shutOut bool // our END_STREAM, or a RST_STREAM, is out

	recvWin int64
	target  int64 // what recvWin is filled up to
	owed    int64 // what has left of what came, and isn't given back
	shutIn  bool  // the peer's END_STREAM, or a RST_STREAM, has come
}

// tail is what follows a stream's bytes.
type tail struct {
	set    bool
	fields []hpack.HeaderField // HEADERS with END_STREAM; nil: END_STREAM alone
	rst    bool                // RST_STREAM in place of either
	code   http2.ErrCode
	call   bool // the call has to be told before it goes out: it ends
}

// newStream is a stream of the link that isn't in its table yet.
func (l *link) newStream(id uint32, c *call) *stream {
	return &stream{l: l, id: id, call: c, sendWin: l.initial, recvWin: firstWindow, target: firstWindow}
}

// push puts b at the end of what s sends: v, whose reference it takes over, or
// small, which it copies.
func (s *stream) push(from *stream, v view, small []byte, h *held, w *work) {
	l := s.l
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.shutOut || s.tail.set || l.dead {
		if v.c != nil {
			v.c.release()
		}
		return
	}
	s.src = from
	if v.c != nil {
		s.queue.add(v)
	} else if len(small) > 0 && !s.queue.join(small) {
		c := newChunk(len(small), h)
		c.b = append(c.b, small...)
		s.queue.add(view{c, c.b})
	}
	l.list(s)
	w.add(l)
}

// finish puts t behind what s sends.
func (s *stream) finish(t tail, w *work) {
	l := s.l
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.shutOut || l.dead {
		return
	}
	t.set = true
	s.tail = t
	l.list(s)
	w.add(l)
}

// list has s sent from, if there is something and a window for it. Under l.mu.
func (l *link) list(s *stream) {
	if s.listed || s.shutOut || s.queue.n > 0 && s.sendWin <= 0 || s.queue.n == 0 && !s.tail.set {
		return
	}
	s.listed = true
	if l.last != nil {
		l.last.next = s
	} else {
		l.first = s
	}
	l.last = s
}

// unlist takes the first stream off the list. Under l.mu.
func (l *link) unlist() *stream {
	s := l.first
	l.first, s.next, s.listed = s.next, nil, false
	if l.first == nil {
		l.last = nil
	}
	return s
}

// cancel resets s, whatever it has to send.
func (s *stream) cancel(code http2.ErrCode, w *work) {
	l := s.l
	l.mu.Lock()
	if s.shutOut && s.shutIn {
		l.mu.Unlock()
		return
	}
	s.queue.clear()
	s.tail = tail{}
	s.shutOut, s.shutIn = true, true
	if !l.dead {
		l.ctl = appendReset(l.ctl, s.id, code)
	}
	l.drop(s, w)
	l.mu.Unlock()
	w.add(l)
}

// abandon forgets s, which the peer has reset.
func (s *stream) abandon(w *work) {
	l := s.l
	l.mu.Lock()
	defer l.mu.Unlock()
	s.queue.clear()
	s.tail = tail{}
	l.shut(s, true, true, w)
}

// resume says that so many of the bytes that s will send have had their window
// given back when they were sent before.
func (s *stream) resume(credited uint64) {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	s.skip = credited
}

// unqueue drops what s has to send.
func (s *stream) unqueue() {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	s.queue.clear()
}

// shut says that one half of s is over, or both, and forgets it if so. Under
// l.mu.
func (l *link) shut(s *stream, in, out bool, w *work) {
	s.shutIn, s.shutOut = s.shutIn || in, s.shutOut || out
	if s.shutIn && s.shutOut {
		l.drop(s, w)
	}
}

// drop forgets s. Under l.mu.
func (l *link) drop(s *stream, w *work) {
	if l.streams[s.id] == s {
		delete(l.streams, s.id)
		w.freed(l)
	}
}

// open sends HEADERS that open a stream, with the next number. Under l.mu.
func (l *link) open(s *stream, fields []hpack.HeaderField, end bool, w *work) {
	s.id = l.nextID
	l.nextID += 2
	l.streams[s.id] = s
	l.putHeaders(s.id, fields, end)
	if end {
		s.shutOut = true
	}
	w.add(l)
}

// headers sends HEADERS of an open stream that come before its bytes.
func (s *stream) headers(fields []hpack.HeaderField, w *work) {
	l := s.l
	l.mu.Lock()
	defer l.mu.Unlock()
	if !s.shutOut && !l.dead {
		l.putHeaders(s.id, fields, false)
		w.add(l)
	}
}

// credit gives n bytes of a stream's window back: they have left.
func (s *stream) credit(n int64, w *work) {
	l := s.l
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.shutIn || l.dead {
		return
	}
	s.owed += n
	if s.owed < s.target/2 {
		return
	}
	grown := min(s.target*2, maxWindow)
	if l.eng.mem.all.Load() > l.eng.mem.most/4 {
		grown = s.target
	}
	n = s.owed + grown - s.target
	s.target, s.owed = grown, 0
	s.recvWin += n
	l.ctl = appendWindowUpdate(l.ctl, s.id, uint32(n))
	w.add(l)
}

// earn adds to the connection's credit.
func (l *link) earn(n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.credits = min(l.credits+n, creditMost)
}

// fail ends the connection at once.
func (l *link) fail(err error, w *work) {
	l.mu.Lock()
	if l.dead {
		l.mu.Unlock()
		return
	}
	l.dead, l.err = true, err
	streams := make([]*stream, 0, len(l.streams))
	for _, s := range l.streams {
		s.queue.clear()
		s.shutIn, s.shutOut = true, true
		streams = append(streams, s)
	}
	clear(l.streams)
	for l.first != nil {
		l.unlist()
	}
	l.ctl, l.stalled = nil, nil
	l.mu.Unlock()
	l.sock.close()
	l.side.lost(streams, l.written, err, w)
}

// finishing has the connection end once all that is to be written has been: our
// FIN, and the peer's within lingerTime. code other than no error comes with a
// GOAWAY.
func (l *link) finishing(last uint32, code http2.ErrCode, why string, w *work) {
	l.mu.Lock()
	if l.dead || l.closing {
		l.mu.Unlock()
		return
	}
	l.closing = true
	if code != http2.ErrCodeNo {
		l.ctl = appendGoAway(l.ctl, last, code, why)
	}
	l.mu.Unlock()
	w.add(l)
	l.eng.after(lingerTime, func(w *work) { l.fail(errClosed, w) })
}
