// SPDX-License-Identifier: Apache-2.0

package grpc_test

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// raw is one end of an HTTP/2 connection, frame by frame.
type raw struct {
	t testing.TB
	net.Conn
	*http2.Framer
	enc *hpack.Encoder
	buf bytes.Buffer

	writing sync.Mutex

	mu     sync.Mutex
	grown  *sync.Cond
	window map[uint32]int // what the peer has given beyond its first 65535
	used   map[uint32]int
	over   bool
}

// write has frames written that no other goroutine's come between.
func (r *raw) write(f func()) {
	r.writing.Lock()
	defer r.writing.Unlock()
	f()
}

// take waits until n bytes of a stream may be sent.
func (r *raw) take(id uint32, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.over && (r.used[id]+n > 65535+r.window[id] || r.used[0]+n > 65535+r.window[0]) {
		r.grown.Wait()
	}
	r.used[id] += n
	r.used[0] += n
}

func (r *raw) grow(id uint32, n int, over bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.window[id] += n
	r.over = r.over || over
	r.grown.Broadcast()
}

func newRaw(t testing.TB, c net.Conn) *raw {
	r := &raw{t: t, Conn: c, Framer: http2.NewFramer(c, c), window: map[uint32]int{}, used: map[uint32]int{}}
	r.grown = sync.NewCond(&r.mu)
	r.AllowIllegalWrites = true
	r.enc = hpack.NewEncoder(&r.buf)
	r.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	r.MaxHeaderListSize = 4 << 20
	c.SetDeadline(time.Now().Add(30 * time.Second))
	return r
}

// rawClient connects to addr, and has sent its preface and SETTINGS.
func rawClient(t testing.TB, addr string, settings ...http2.Setting) *raw {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	r := newRaw(t, c)
	io.WriteString(c, http2.ClientPreface)
	r.WriteSettings(settings...)
	return r
}

func (r *raw) block(fields ...string) []byte {
	r.buf.Reset()
	for i := 0; i < len(fields); i += 2 {
		r.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return bytes.Clone(r.buf.Bytes())
}

// headers sends a header block, in as many frames as it takes.
func (r *raw) headers(id uint32, end bool, fields ...string) {
	r.writing.Lock()
	defer r.writing.Unlock()
	b := r.block(fields...)
	first := b[:min(len(b), 16384)]
	b = b[len(first):]
	r.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndStream: end, EndHeaders: len(b) == 0})
	for len(b) > 0 {
		part := b[:min(len(b), 16384)]
		b = b[len(part):]
		r.WriteContinuation(id, len(b) == 0, part)
	}
}

// request opens a stream as gRPC does.
func (r *raw) request(id uint32, end bool, more ...string) {
	fields := append([]string{":method", "POST", ":scheme", "http", ":path", "/s.S/M", ":authority", "front", "content-type", "application/grpc", "te", "trailers"}, more...)
	r.headers(id, end, fields...)
}

// next is the next frame that isn't for the connection alone; DATA is copied.
// Nil: the connection has ended, with err.
func (r *raw) next() (f http2.Frame, err error) {
	for {
		f, err := r.ReadFrame()
		if err != nil {
			r.grow(0, 0, true)
			return nil, err
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				r.write(func() { r.WriteSettingsAck() })
			}
			continue
		case *http2.PingFrame:
			if !f.IsAck() {
				data := f.Data
				r.write(func() { r.WritePing(true, data) })
				continue
			}
			return f, nil
		case *http2.WindowUpdateFrame:
			r.grow(f.StreamID, int(f.Increment), false)
			continue
		case *http2.DataFrame:
			if n := f.Header().Length; n > 0 {
				r.write(func() {
					r.WriteWindowUpdate(0, n)
					if !f.StreamEnded() {
						r.WriteWindowUpdate(f.StreamID, n)
					}
				})
			}
		}
		return f, nil
	}
}

// want is the next frame, which has to be of this type.
func want[T http2.Frame](r *raw) T {
	r.t.Helper()
	f, err := r.next()
	if err != nil {
		r.t.Fatalf("no frame: %v", err)
	}
	got, ok := f.(T)
	if !ok {
		r.t.Fatalf("got %v %T", f, f)
	}
	return got
}

// get is the value of a field in a header block.
func get(h *http2.MetaHeadersFrame, name string) string {
	for _, f := range h.Fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// rawBackend is a server whose connections are served by hand.
type rawBackend struct {
	addr string
	mu   sync.Mutex
	n    int // connections so far
}

// serveRaw serves connections until the test ends; SETTINGS have been sent and
// the client's preface read.
func serveRaw(t testing.TB, settings []http2.Setting, serve func(r *raw, nth int)) *rawBackend {
	t.Helper()
	l := listen(t, "127.0.0.1:0")
	b := &rawBackend{addr: l.Addr().String()}
	var wg sync.WaitGroup
	var all sync.Map
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Store(c, true)
			b.mu.Lock()
			n := b.n
			b.n++
			b.mu.Unlock()
			wg.Add(1)
			go func() {
				defer wg.Done()
				defer c.Close()
				r := newRaw(t, c)
				if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
					return
				}
				r.WriteSettings(settings...)
				serve(r, n)
			}()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		all.Range(func(c, _ any) bool { c.(net.Conn).Close(); return true })
		wg.Wait()
	})
	return b
}

func (b *rawBackend) connections() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.n
}

// answer answers a call with a message and trailers.
func (r *raw) answer(id uint32, text string) {
	r.headers(id, false, ":status", "200", "content-type", "application/grpc")
	r.write(func() { r.WriteData(id, false, message(text)) })
	r.headers(id, true, "grpc-status", "0")
}

// message is a gRPC message.
func message(text string) []byte {
	return append([]byte{0, byte(len(text) >> 24), byte(len(text) >> 16), byte(len(text) >> 8), byte(len(text))}, text...)
}

// echo answers each call, once its request is complete, with name.
func echo(name string) func(r *raw, nth int) {
	return func(r *raw, _ int) {
		for {
			f, err := r.next()
			if err != nil {
				return
			}
			switch f := f.(type) {
			case *http2.MetaHeadersFrame:
				if f.StreamEnded() {
					r.answer(f.StreamID, name)
				}
			case *http2.DataFrame:
				if f.StreamEnded() {
					r.answer(f.StreamID, name)
				}
			}
		}
	}
}

// outcome reads the answer of a stream: its text, and grpc-status with
// grpc-message, or the code that it was reset with.
func (r *raw) outcome(id uint32) (text, status string) {
	r.t.Helper()
	var body []byte
	for {
		f, err := r.next()
		if err != nil {
			r.t.Fatalf("no answer of stream %d: %v", id, err)
		}
		if f.Header().StreamID != id {
			continue
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			if f.StreamEnded() {
				if len(body) >= 5 {
					body = body[5:]
				}
				return string(body), get(f, "grpc-status") + " " + get(f, "grpc-message")
			}
		case *http2.DataFrame:
			body = append(body, f.Data()...)
		case *http2.RSTStreamFrame:
			return string(body), "reset " + f.ErrCode.String()
		}
	}
}
