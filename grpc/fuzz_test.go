// SPDX-License-Identifier: Apache-2.0

package grpc_test

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
)

// seeds are byte streams of frames, by someone who knows how.
func seeds(f *testing.F) {
	add := func(write func(r *raw)) {
		var b bytes.Buffer
		r := &raw{Framer: http2.NewFramer(&b, nil), Conn: nil}
		r.AllowIllegalWrites = true
		write(r)
		f.Add(b.Bytes())
	}
	// Blocks that need no table: literal fields of the static names.
	req := []byte{0x83, 0x86, 0x84, 0x5f, 0x10, 'a', 'p', 'p', 'l', 'i', 'c', 'a', 't', 'i', 'o', 'n', '/', 'g', 'r', 'p', 'c'}
	res := []byte{0x88, 0x5f, 0x10, 'a', 'p', 'p', 'l', 'i', 'c', 'a', 't', 'i', 'o', 'n', '/', 'g', 'r', 'p', 'c'}
	for _, block := range [][]byte{req, res} {
		add(func(r *raw) {
			r.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
			r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true})
			r.WriteData(1, false, message("hello"))
			r.WriteDataPadded(1, true, message("hello"), make([]byte, 9))
			r.WriteWindowUpdate(1, 100)
			r.WriteWindowUpdate(0, 100)
			r.WriteRSTStream(1, http2.ErrCodeCancel)
			r.WritePing(false, [8]byte{1})
			r.WriteGoAway(1, http2.ErrCodeNo, []byte("bye"))
		})
		add(func(r *raw) {
			r.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 16384}, http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0})
			r.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: block[:2], Priority: http2.PriorityParam{StreamDep: 3}})
			r.WriteContinuation(3, true, block[2:])
			r.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: block[3:], EndHeaders: true, EndStream: true})
			r.WritePriority(5, http2.PriorityParam{StreamDep: 5})
			r.WriteRawFrame(99, 0xff, 7, []byte("?"))
		})
	}
}

// FuzzClient: whatever a client sends, nobody else notices, and nothing of it is
// left.
func FuzzClient(f *testing.F) {
	seeds(f)
	a := newServer(f, "a")
	r := newRig(f, backends{"pool": {a.addr}}, nil)
	good := testgrpc.NewTestServiceClient(r.client())
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := net.Dial("tcp", r.front.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(c, http2.ClientPreface)
		c.Write(b)
		c.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, c)
		if _, err := tryCall(good); err != nil {
			t.Error(err)
		}
		eventually(t, func() string { return "a call is left" }, func() bool { return r.settings.Counters.Active.Load() == 0 })
	})
}

// FuzzBackend: whatever a backend sends, its calls end.
func FuzzBackend(f *testing.F) {
	seeds(f)
	next := make(chan []byte, 1)
	b := serveRaw(f, nil, func(r *raw, _ int) {
		for { // its first call is answered with noise
			f, err := r.Framer.ReadFrame()
			if err != nil {
				return
			}
			if _, ok := f.(*http2.MetaHeadersFrame); ok {
				break
			}
		}
		select {
		case noise := <-next:
			r.Conn.Write(noise)
			r.Conn.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, r.Conn)
		default:
		}
	})
	r := newRig(f, backends{"pool": {b.addr}}, nil)
	f.Fuzz(func(t *testing.T, noise []byte) {
		select {
		case <-next:
		default:
		}
		next <- noise
		c := rawClient(t, r.front.Addr().String())
		defer c.Conn.Close()
		c.request(1, true)
		for {
			f, err := c.next()
			if err != nil {
				t.Fatal(err)
			}
			if f.Header().StreamID != 1 {
				continue
			}
			if h, ok := f.(*http2.MetaHeadersFrame); ok && h.StreamEnded() {
				break
			}
			if d, ok := f.(*http2.DataFrame); ok && d.StreamEnded() {
				break
			}
			if _, ok := f.(*http2.RSTStreamFrame); ok {
				break
			}
		}
		c.Conn.Close()
		eventually(t, func() string { return "a call is left" }, func() bool { return r.settings.Counters.Active.Load() == 0 })
	})
}
