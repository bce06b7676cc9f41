// SPDX-License-Identifier: Apache-2.0

package grpc_test

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"

	"sluice/accesslog"
	"sluice/config"
)

// heap is the memory in use.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

// floods are clients that send what costs us more than them: step sends some of
// it. Each ends with the connection, whose end has this code.
func floods() map[string]struct {
	code  http2.ErrCode
	begin func(r *raw)
	step  func(r *raw, i int)
} {
	type flood = struct {
		code  http2.ErrCode
		begin func(r *raw)
		step  func(r *raw, i int)
	}
	open := func(r *raw) { r.request(1, false) }
	half := func(r *raw) {
		r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: r.block(":method", "POST")})
	}
	return map[string]flood{
		"continuation": {http2.ErrCodeEnhanceYourCalm, half, func(r *raw, _ int) { r.WriteContinuation(1, false, r.block("a", "b")) }},
		"continuation of large frames": {http2.ErrCodeEnhanceYourCalm, half, func(r *raw, i int) {
			r.WriteContinuation(1, false, r.block("a", string(make([]byte, 16000)), "i", fmt.Sprint(i)))
		}},
		"rapid reset": {http2.ErrCodeEnhanceYourCalm, nil, func(r *raw, i int) {
			id := uint32(2*i + 1)
			r.request(id, true)
			r.WriteRSTStream(id, http2.ErrCodeCancel)
		}},
		"provoked resets": {http2.ErrCodeEnhanceYourCalm, nil, func(r *raw, i int) {
			id := uint32(2*i + 1)
			r.request(id, false)
			r.WriteWindowUpdate(id, 1<<31-1)
		}},
		"malformed requests": {http2.ErrCodeEnhanceYourCalm, nil, func(r *raw, i int) { r.headers(uint32(2*i+1), true, ":method", "POST", "a", "b") }},
		"settings": {http2.ErrCodeEnhanceYourCalm, nil, func(r *raw, _ int) {
			r.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100})
		}},
		"pings":          {http2.ErrCodeEnhanceYourCalm, nil, func(r *raw, _ int) { r.WritePing(false, [8]byte{}) }},
		"empty data":     {http2.ErrCodeEnhanceYourCalm, open, func(r *raw, _ int) { r.WriteData(1, false, nil) }},
		"priorities":     {http2.ErrCodeEnhanceYourCalm, nil, func(r *raw, _ int) { r.WritePriority(1, http2.PriorityParam{StreamDep: 3}) }},
		"unknown frames": {http2.ErrCodeEnhanceYourCalm, nil, func(r *raw, _ int) { r.WriteRawFrame(77, 0, 0, nil) }},
		"tiny windows":   {http2.ErrCodeEnhanceYourCalm, open, func(r *raw, _ int) { r.WriteWindowUpdate(1, 1) }},
	}
}

// goodRoute has the calls of the interop service go elsewhere than the floods'.
func goodRoute(c *config.Listener) {
	c.GRPC.Routes = []config.Route{{Methods: []string{"/grpc.testing.TestService/"}, Pool: "good"}}
}

func TestFloods(t *testing.T) {
	hung := serveRaw(t, nil, func(r *raw, _ int) {
		for {
			if _, err := r.Framer.ReadFrame(); err != nil {
				return
			}
		}
	})
	a := newServer(t, "a")
	for name, f := range floods() {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, backends{"pool": {hung.addr}, "good": {a.addr}}, goodRoute)
			good := testgrpc.NewTestServiceClient(r.client())
			call(t, good)
			before := heap()
			c := rawClient(t, r.front.Addr().String())
			ended := make(chan http2.ErrCode, 1)
			go func() {
				for {
					g, err := c.ReadFrame()
					if err != nil {
						ended <- http2.ErrCodeNo
						return
					}
					if g, ok := g.(*http2.GoAwayFrame); ok {
						ended <- g.ErrCode
						return
					}
				}
			}()
			if f.begin != nil {
				f.begin(c)
			}
			var most uint64
			for i := 0; ; i++ {
				f.step(c, i)
				if i%20000 == 0 {
					most = max(most, heap())
					call(t, good)
				}
				select {
				case code := <-ended:
					if code != f.code {
						t.Errorf("the connection ended with %v, want %v", code, f.code)
					}
				default:
					if i < 2000000 {
						continue
					}
					t.Error("it goes on")
				}
				break
			}
			call(t, good)
			if most > before+64<<20 {
				t.Errorf("%d MiB of memory more than before", (most-before)>>20)
			}
			eventually(t, func() string { return fmt.Sprintf("%d calls are live", r.settings.Counters.Active.Load()) }, func() bool {
				return r.settings.Counters.Active.Load() == 0
			})
		})
	}
}

// Floods whose answers nobody reads: what waits is bounded.
func TestFloodsUnread(t *testing.T) {
	a := newServer(t, "a")
	for _, name := range []string{"pings", "settings"} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, backends{"pool": {a.addr}}, nil)
			before := heap()
			c := rawClient(t, r.front.Addr().String())
			eventually(t, func() string { return "no connection" }, func() bool { return connections(r).Clients == 1 })
			f := floods()[name]
			for i := 0; i < 1000000; i++ {
				if f.step(c, i); i%1000 == 0 && connections(r).Clients == 0 {
					break
				}
			}
			eventually(t, func() string { return "the connection is still there" }, func() bool { return connections(r).Clients == 0 })
			if after := heap(); after > before+32<<20 {
				t.Errorf("%d MiB of memory more than before", (after-before)>>20)
			}
		})
	}
}

// A call with too many metadata fails alone, either way.
func TestTooLargeMetadata(t *testing.T) {
	p := newPair(t, nil)
	want[*http2.MetaHeadersFrame](p.server)
	big := string(make([]byte, 0, 300<<10))
	for len(big) < 270<<10 {
		big += "0123456789abcdefghijklmnopqrstuvwxyz"
	}
	p.client.request(3, true, "big", big)
	if _, st := p.client.outcome(3); st != "8 sluice: metadata of more than 262144 bytes" {
		t.Errorf("%q", st)
	}
	p.client.request(5, true)
	id := want[*http2.MetaHeadersFrame](p.server).StreamID
	p.server.headers(id, true, ":status", "200", "big", big)
	if _, st := p.client.outcome(5); st != "8 sluice: "+addrOf(p)+" answers with metadata of more than 262144 bytes" {
		t.Errorf("%q", st)
	}
	p.client.request(7, true)
	h := want[*http2.MetaHeadersFrame](p.server)
	p.server.answer(h.StreamID, "fine")
	if text, st := p.client.outcome(7); text != "fine" {
		t.Errorf("%q %q", text, st)
	}
}

func addrOf(p *pair) string { return p.rig.pools["pool"].Backends()[0].Addr.String() }

// One call more than a connection may have is refused, and costs the others nothing.
func TestOneCallTooMany(t *testing.T) {
	hung := serveRaw(t, nil, func(r *raw, _ int) {
		for {
			if _, err := r.next(); err != nil {
				return
			}
		}
	})
	r := newRig(t, backends{"pool": {hung.addr}}, nil)
	c := rawClient(t, r.front.Addr().String())
	const most = 16384
	go func() {
		for i := range uint32(most + 1) {
			c.request(2*i+1, true)
		}
	}()
	f := want[*http2.RSTStreamFrame](c)
	if f.ErrCode != http2.ErrCodeRefusedStream || f.StreamID != 2*most+1 {
		t.Errorf("%v", f)
	}
	if n := r.settings.Counters.Active.Load(); n != most {
		t.Errorf("%d calls", n)
	}
	c.Close()
	rec := r.ended(most)
	if rec[0].Reason != accesslog.ClientReset && rec[0].Reason != accesslog.ClientClosed {
		t.Errorf("%+v", rec[0])
	}
}

// Clients that don't read hold up themselves alone, and hold no more than their
// windows; the backend is the same for all.
func TestSlowReaders(t *testing.T) {
	const streams = 500
	body := message(string(make([]byte, 1<<20)))
	much := serveRaw(t, nil, func(r *raw, _ int) {
		var sending sync.WaitGroup
		defer sending.Wait()
		for {
			f, err := r.next()
			if err != nil {
				return
			}
			if h, ok := f.(*http2.MetaHeadersFrame); ok {
				id := h.StreamID
				r.headers(id, false, ":status", "200", "content-type", "application/grpc")
				sending.Add(1)
				go func() {
					defer sending.Done()
					r.sendAll(id, body, false)
				}()
			}
		}
	})
	a := newServer(t, "a")
	r := newRig(t, backends{"pool": {much.addr}, "good": {a.addr}}, goodRoute)
	before := heap()
	c := rawClient(t, r.front.Addr().String(), http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	go func() { // it reads, and gives no window
		for {
			if _, err := c.ReadFrame(); err != nil {
				return
			}
		}
	}()
	for i := range uint32(streams) {
		c.request(2*i+1, true)
	}
	eventually(t, func() string { return fmt.Sprintf("%d calls are live", r.settings.Counters.Active.Load()) }, func() bool {
		return r.settings.Counters.Active.Load() == streams
	})
	good := testgrpc.NewTestServiceClient(r.client())
	for range 200 {
		call(t, good)
	}
	time.Sleep(100 * time.Millisecond)
	if after := heap(); after > before+streams*(2*65535)+32<<20 {
		t.Errorf("%d MiB of memory for %d calls", (after-before)>>20, streams)
	}
	if n := r.settings.Counters.Active.Load(); n != streams {
		t.Errorf("%d calls are live", n)
	}
	c.Close()
	r.ended(streams + 200)
}

// More bytes on a stream than its window has fail it alone; so does a window
// beyond what there may be.
func TestFlowControl(t *testing.T) {
	p := newPair(t, nil)
	want[*http2.MetaHeadersFrame](p.server)
	p.client.request(3, false)
	want[*http2.MetaHeadersFrame](p.server)
	p.client.WriteWindowUpdate(3, 1<<31-1)
	if f := want[*http2.RSTStreamFrame](p.client); f.ErrCode != http2.ErrCodeFlowControl || f.StreamID != 3 {
		t.Errorf("%v", f)
	}
	if f := want[*http2.RSTStreamFrame](p.server); f.ErrCode != http2.ErrCodeCancel {
		t.Errorf("%v", f)
	}
	p.server.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	time.Sleep(20 * time.Millisecond)
	p.client.request(5, false)
	for range 5 {
		p.client.WriteData(5, false, make([]byte, 16000))
	}
	if f := want[*http2.RSTStreamFrame](p.client); f.ErrCode != http2.ErrCodeFlowControl || f.StreamID != 5 {
		t.Errorf("%v", f)
	}
	p.client.WriteWindowUpdate(0, 1<<31-1)
	if f := want[*http2.GoAwayFrame](p.client); f.ErrCode != http2.ErrCodeFlowControl {
		t.Errorf("%v", f)
	}
}

// Bytes that nobody takes are bounded over all calls: whoever has many of them
// loses calls, and nobody else does.
func TestHeldBytes(t *testing.T) {
	hung := serveRaw(t, nil, func(r *raw, _ int) {
		for {
			if _, err := r.Framer.ReadFrame(); err != nil {
				return
			}
		}
	})
	a := newServer(t, "a")
	r := newRigHolding(t, backends{"pool": {hung.addr}, "good": {a.addr}}, goodRoute, 8<<20)
	before := heap()
	c := rawClient(t, r.front.Addr().String())
	var ended atomic.Int64
	go func() {
		for {
			f, err := c.ReadFrame()
			if err != nil {
				return
			}
			if h, ok := f.(*http2.MetaHeadersFrame); ok && get(h, "grpc-status") == "8" {
				ended.Add(1)
			}
		}
	}()
	good := testgrpc.NewTestServiceClient(r.client())
	for i := range uint32(1000) {
		c.request(2*i+1, false)
		for range 4 {
			c.WriteData(2*i+1, false, make([]byte, 16000))
		}
		if i%100 == 0 {
			call(t, good)
			if now := heap(); now > before+64<<20 {
				t.Fatalf("%d MiB of memory more than before", (now-before)>>20)
			}
		}
	}
	eventually(t, func() string { return fmt.Sprintf("%d calls have ended", ended.Load()) }, func() bool { return ended.Load() > 800 })
	for range 100 {
		call(t, good)
	}
}
