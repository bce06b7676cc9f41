// SPDX-License-Identifier: Apache-2.0

package grpc

import (
	"errors"
	"io"
	"time"

	"golang.org/x/net/http2"
)

// errClosed is for a connection that we have ended.
var errClosed = errors.New("ended by us")

// inbound reads a link. It belongs to the link's reader.
type inbound struct {
	l      *link
	framer *http2.Framer
	block  *block
	rest   []byte // read and not looked at yet
	now    int64  // when it was read
	window int64  // what the peer may still send on the connection
	w      work
	begun  bool // the peer's first SETTINGS have come

	headersOf  uint32 // the stream of the block that is being read
	headersEnd bool
}

func (in *inbound) init(l *link) {
	in.l, in.block, in.window = l, newBlock(), connWindow
	in.framer = http2.NewFramer(nil, in)
	in.framer.SetMaxReadFrameSize(maxFrame)
}

// Read implements io.Reader for the framer. What has come of the frames before
// is written before it waits for more.
func (in *inbound) Read(p []byte) (int, error) {
	if err := in.more(); err != nil {
		return 0, err
	}
	n := copy(p, in.rest)
	in.rest = in.rest[n:]
	return n, nil
}

// more sees to it that there is something in rest.
func (in *inbound) more() (err error) {
	if len(in.rest) > 0 {
		return nil
	}
	in.w.flush()
	in.rest, err = in.l.sock.read()
	in.now = in.l.eng.clock.Now()
	return err
}

// run reads until the connection ends. It is the link's one goroutine.
func (l *link) run() {
	in := &l.in
	err := in.frames()
	last, code, why := l.verdict(err)
	if code != http2.ErrCodeNo {
		l.eng.log.Debug().Str("error", why).Bool("client", l.client).Msg("a connection ends for a fault of its peer")
		l.finishing(last, code, why, &in.w)
		in.w.flush()
		in.discard()
		err = errors.New(why)
	}
	in.w.flush()
	l.fail(err, &in.w)
	in.w.flush()
	l.sock.letGo()
}

// verdict is what a peer is told for an error of its: ErrCodeNo, nothing.
func (l *link) verdict(err error) (last uint32, code http2.ErrCode, why string) {
	var conn http2.ConnectionError
	switch {
	case errors.As(err, &conn):
		code, why = http2.ErrCode(conn), "sluice: "+err.Error()
		if detail := l.in.framer.ErrorDetail(); detail != nil {
			why = "sluice: " + detail.Error()
		}
	case errors.Is(err, http2.ErrFrameTooLarge):
		code, why = http2.ErrCodeFrameSize, "sluice: a frame larger than SETTINGS allow"
	default:
		return 0, http2.ErrCodeNo, ""
	}
	if code == http2.ErrCodeNo {
		code = http2.ErrCodeProtocol
	}
	if l.client {
		l.mu.Lock()
		last = l.nextID
		l.mu.Unlock()
	}
	return last, code, why
}

// discard reads what a peer still sends that has been told to go.
func (in *inbound) discard() {
	for n := 0; n < connWindow; n += len(in.rest) {
		var err error
		if in.rest, err = in.l.sock.read(); err != nil {
			return
		}
	}
}

// frames reads frame by frame. The error is never nil.
func (in *inbound) frames() error {
	for {
		h, err := in.framer.ReadFrameHeader()
		if err != nil {
			return err
		}
		if !in.begun && (h.Type != http2.FrameSettings || h.Flags.Has(http2.FlagSettingsAck)) {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		if h.Type == http2.FrameData {
			err = in.data(h)
		} else {
			var f http2.Frame
			if f, err = in.framer.ReadFrameForHeader(h); err == nil {
				err = in.frame(f)
			}
		}
		var bad http2.StreamError
		if errors.As(err, &bad) {
			err = in.refuse(bad)
		}
		if err != nil {
			return err
		}
	}
}

// refuse resets a stream for a fault of the peer.
func (in *inbound) refuse(bad http2.StreamError) error {
	l := in.l
	l.mu.Lock()
	s := l.streams[bad.StreamID]
	if s == nil {
		l.ctl = appendReset(l.ctl, bad.StreamID, bad.Code)
	}
	l.mu.Unlock()
	in.w.add(l)
	if s != nil {
		s.cancel(bad.Code, &in.w)
		l.side.broken(s, &in.w)
	}
	return in.spend(costReset)
}

// spend takes n off the connection's credit. An error: there is none left.
func (in *inbound) spend(n int64) error {
	l := in.l
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.credits -= n; l.credits < 0 {
		earned := (in.now - l.paid) * creditSecond / int64(time.Second)
		l.credits, l.paid = min(l.credits+earned, creditMost), in.now
		if l.credits < 0 {
			return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
		}
	}
	if len(l.ctl) > maxUnsent {
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm) // it makes us answer and reads nothing
	}
	return nil
}

// frame sees to a frame other than DATA.
func (in *inbound) frame(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.HeadersFrame:
		if f.HasPriority() && f.Priority.StreamDep == f.StreamID {
			// The block is decoded all the same; the stream is refused at its end.
			return in.begin(f, errField)
		}
		return in.begin(f, nil)
	case *http2.ContinuationFrame:
		if err := in.block.add(f.HeaderBlockFragment()); err != nil {
			return err
		}
		if f.HeadersEnded() {
			return in.ended()
		}
		return nil
	case *http2.SettingsFrame:
		return in.settings(f)
	case *http2.WindowUpdateFrame:
		return in.windowUpdate(f)
	case *http2.PingFrame:
		return in.ping(f)
	case *http2.RSTStreamFrame:
		return in.reset(f)
	case *http2.GoAwayFrame:
		in.l.side.goAway(f.LastStreamID, f.ErrCode, &in.w)
		return in.spend(1)
	case *http2.PriorityFrame:
		if f.StreamDep == f.StreamID {
			return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol}
		}
		return in.spend(1)
	case *http2.PushPromiseFrame:
		return http2.ConnectionError(http2.ErrCodeProtocol) // nobody has been told that it may
	}
	return in.spend(1) // of a type that we don't know
}

// begin reads a HEADERS frame.
func (in *inbound) begin(f *http2.HeadersFrame, bad error) error {
	in.block.begin()
	in.block.bad = bad
	in.headersOf, in.headersEnd = f.StreamID, f.StreamEnded()
	if err := in.block.add(f.HeaderBlockFragment()); err != nil {
		return err
	}
	if f.HeadersEnded() {
		return in.ended()
	}
	return nil
}

// ended hands a whole block on.
func (in *inbound) ended() error {
	fields, err := in.block.end()
	if err != nil {
		return err
	}
	return in.l.side.headers(in.headersOf, fields, in.headersEnd, in.block, &in.w)
}

// data reads a DATA frame.
func (in *inbound) data(h http2.FrameHeader) error {
	l := in.l
	n := int(h.Length)
	if h.StreamID == 0 {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	if in.window -= int64(n); in.window < 0 {
		return http2.ConnectionError(http2.ErrCodeFlowControl)
	}
	pad := 0
	if h.Flags.Has(http2.FlagDataPadded) {
		var one [1]byte
		if n == 0 {
			return http2.ConnectionError(http2.ErrCodeFrameSize)
		}
		if _, err := io.ReadFull(in, one[:]); err != nil {
			return err
		}
		n--
		if pad = int(one[0]); pad > n {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		n -= pad
	}
	end := h.Flags.Has(http2.FlagDataEndStream)
	s, err := in.accepts(h, n)
	if err == nil && s != nil {
		err = in.payload(s, n, end)
	} else if e := in.skip(n); e != nil {
		err = e
	}
	if e := in.skip(pad); e != nil {
		return e
	}
	if owed := connWindow - in.window; owed >= connWindow/4 {
		in.window += owed
		l.mu.Lock()
		l.ctl = appendWindowUpdate(l.ctl, 0, uint32(owed))
		l.mu.Unlock()
		in.w.add(l)
	}
	if n == 0 && !end || s == nil {
		if e := in.spend(1); e != nil {
			return e
		}
	}
	return err
}

// accepts finds the stream of a DATA frame with n bytes of payload. None without
// an error: the stream is over, and what was under way when it ended is nobody's.
func (in *inbound) accepts(h http2.FrameHeader, n int) (*stream, error) {
	l := in.l
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.streams[h.StreamID]
	if s == nil {
		if l.isIdle(h.StreamID) {
			return nil, http2.ConnectionError(http2.ErrCodeProtocol)
		}
		return nil, nil
	}
	if s.shutIn {
		return nil, http2.StreamError{StreamID: s.id, Code: http2.ErrCodeStreamClosed}
	}
	if s.recvWin < int64(h.Length) {
		return nil, http2.StreamError{StreamID: s.id, Code: http2.ErrCodeFlowControl}
	}
	s.recvWin -= int64(h.Length)
	s.owed += int64(h.Length) - int64(n) // padding
	l.credits = min(l.credits+int64(n)/creditBytes, creditMost)
	return s, nil
}

// isIdle says whether a stream of that number hasn't been opened yet. Under l.mu.
func (l *link) isIdle(id uint32) bool {
	if id&1 == 0 {
		return true // nobody opens those
	}
	if l.client {
		return id > l.nextID
	}
	return id >= l.nextID
}

// payload reads n bytes of a stream and hands them on.
func (in *inbound) payload(s *stream, n int, end bool) error {
	var v view
	var small []byte
	if n <= len(in.rest) && n <= chunkSizes[0] {
		small, in.rest = in.rest[:n], in.rest[n:]
	} else {
		c := newChunk(n, &s.call.client.held)
		c.b = c.b[:n]
		if _, err := io.ReadFull(in, c.b); err != nil {
			c.release()
			return err
		}
		v = view{c, c.b}
	}
	s.got.add(n)
	if end { // only now: whoever has a half-read frame is told of a connection that breaks
		in.l.mu.Lock()
		in.l.shut(s, true, false, &in.w)
		in.l.mu.Unlock()
	}
	in.l.side.data(s, v, small, end, &in.w)
	return nil
}

// skip reads n bytes that nobody wants.
func (in *inbound) skip(n int) error {
	for n > 0 {
		if err := in.more(); err != nil {
			return err
		}
		m := min(n, len(in.rest))
		in.rest = in.rest[m:]
		n -= m
	}
	return nil
}

func (in *inbound) settings(f *http2.SettingsFrame) error {
	l := in.l
	if f.IsAck() {
		return in.spend(1)
	}
	if f.HasDuplicates() && f.NumSettings() > 64 {
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return err
		}
		l.side.setting(s)
		return l.apply(s)
	})
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.ctl = appendSettingsAck(l.ctl)
	l.mu.Unlock()
	in.w.add(l)
	if !in.begun {
		in.begun = true
		l.side.ready(&in.w)
	}
	return in.spend(1)
}

// apply has the link go by a setting of its peer.
func (l *link) apply(s http2.Setting) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch s.ID {
	case http2.SettingHeaderTableSize:
		l.enc.SetMaxDynamicTableSize(s.Val) // 4096 at most, whatever the peer allows
	case http2.SettingMaxFrameSize:
		l.frame = int(min(s.Val, maxFrame))
	case http2.SettingInitialWindowSize:
		d := int64(s.Val) - l.initial
		l.initial = int64(s.Val)
		for _, st := range l.streams {
			if st.sendWin += d; st.sendWin > 1<<31-1 {
				return http2.ConnectionError(http2.ErrCodeFlowControl)
			}
			l.list(st)
		}
	}
	return nil
}

func (in *inbound) windowUpdate(f *http2.WindowUpdateFrame) error {
	l := in.l
	l.mu.Lock()
	in.w.add(l)
	if f.StreamID == 0 {
		l.window += int64(f.Increment)
		if l.window > 1<<31-1 {
			l.mu.Unlock()
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
		for _, s := range l.stalled {
			s.listed = false
			l.list(s)
		}
		clear(l.stalled)
		l.stalled = l.stalled[:0]
		l.mu.Unlock()
		return in.spend(1)
	}
	s := l.streams[f.StreamID]
	idle := s == nil && l.isIdle(f.StreamID)
	over := false
	if s != nil {
		s.sendWin += int64(f.Increment)
		over = s.sendWin > 1<<31-1
		l.list(s)
	}
	l.mu.Unlock()
	switch {
	case idle:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case over:
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeFlowControl}
	}
	return in.spend(1)
}

func (in *inbound) ping(f *http2.PingFrame) error {
	l := in.l
	if f.IsAck() {
		l.side.pong(&in.w)
		return in.spend(1)
	}
	l.mu.Lock()
	l.ctl = appendPing(l.ctl, true, f.Data)
	l.mu.Unlock()
	in.w.add(l)
	return in.spend(1)
}

func (in *inbound) reset(f *http2.RSTStreamFrame) error {
	l := in.l
	l.mu.Lock()
	s := l.streams[f.StreamID]
	idle := s == nil && l.isIdle(f.StreamID)
	l.mu.Unlock()
	if idle {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	if s != nil {
		s.abandon(&in.w)
		l.side.reset(s, f.ErrCode, &in.w)
	}
	if f.ErrCode == http2.ErrCodeNo {
		return nil // after an answer: it is how gRPC ends a request that nobody wants
	}
	return in.spend(costReset)
}
