// SPDX-License-Identifier: Apache-2.0

package grpc_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"sluice/accesslog"
	"sluice/config"
)

// refuse resets each call with REFUSED_STREAM once it is there.
func refuse(r *raw, _ int) {
	for {
		f, err := r.next()
		if err != nil {
			return
		}
		if h, ok := f.(*http2.MetaHeadersFrame); ok {
			r.WriteRSTStream(h.StreamID, http2.ErrCodeRefusedStream)
		}
	}
}

// goes tells the peer to go when a call comes, which it hasn't looked at.
func goes(r *raw, _ int) {
	for {
		f, err := r.next()
		if err != nil {
			return
		}
		if _, ok := f.(*http2.MetaHeadersFrame); ok {
			r.WriteGoAway(0, http2.ErrCodeNo, nil)
			return
		}
	}
}

// breaks closes the connection when a whole request has come.
func breaks(r *raw, _ int) {
	for {
		f, err := r.next()
		if err != nil {
			return
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			if f.StreamEnded() {
				return
			}
		case *http2.DataFrame:
			if f.StreamEnded() {
				return
			}
		}
	}
}

// What is sent again, and what isn't.
func TestRetry(t *testing.T) {
	const read = "/milvus.grpc.MilvusService/Search"
	for _, tt := range []struct {
		name     string
		first    func(*raw, int)
		path     string
		body     int
		conf     func(*config.GRPC)
		want     string // who answers; else the status
		attempts int
	}{
		{name: "refused", first: refuse, path: "/s.S/M", body: 100, want: "b", attempts: 2},
		{name: "refused, whatever the size", first: refuse, path: "/s.S/M", body: 60000, want: "b", attempts: 2},
		{name: "goes away", first: goes, path: "/s.S/M", body: 100, want: "b", attempts: 2},
		{name: "breaks", first: breaks, path: "/s.S/M", body: 100, want: "14 sluice: ADDR closed the connection", attempts: 1},
		{name: "breaks, a read", first: breaks, path: read, body: 100, want: "b", attempts: 2},
		{name: "breaks, a large read", first: breaks, path: read, body: 1<<20 + 100<<10, want: "14 sluice: ADDR closed the connection", attempts: 1},
		{name: "breaks, idempotent", first: breaks, path: "/s.S/M", body: 100, want: "b", attempts: 2, conf: func(g *config.GRPC) {
			g.Routes = []config.Route{{Methods: []string{"/s.S/"}, Pool: "pool", Idempotent: true}}
		}},
		{name: "refused, retry off", first: refuse, path: read, body: 100, want: "14 sluice: ADDR refused the call", attempts: 1, conf: func(g *config.GRPC) { g.RetryOff = true }},
		{name: "breaks, retry off", first: breaks, path: read, body: 100, want: "14 sluice: ADDR closed the connection", attempts: 1, conf: func(g *config.GRPC) { g.RetryOff = true }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := serveRaw(t, nil, tt.first), serveRaw(t, nil, echo("b"))
			r := newRig(t, backends{"pool": {a.addr, b.addr}}, func(c *config.Listener) {
				if tt.conf != nil {
					tt.conf(c.GRPC)
				}
			})
			c := rawClient(t, r.front.Addr().String())
			c.headers(1, false, ":method", "POST", ":scheme", "http", ":path", tt.path, "content-type", "application/grpc")
			go func() {
				c.send(1, make([]byte, tt.body), true)
			}()
			text, status := c.outcome(1)
			got := text
			if text == "" {
				got = status
			}
			if want := strings.ReplaceAll(tt.want, "ADDR", a.addr); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			rec := r.ended(1)[0]
			if len(rec.Attempts) != tt.attempts {
				t.Errorf("attempts %+v", rec.Attempts)
			}
			for _, s := range []string{a.addr, b.addr} {
				if st := stateOf(r, s); st != "up" {
					t.Errorf("%s is %s", s, st)
				}
			}
		})
	}
}

// send sends n bytes as a message of a request, as its windows allow.
func (r *raw) send(id uint32, b []byte, end bool) {
	r.sendAll(id, message(string(b)), end)
}

// sendAll sends b as it is.
func (r *raw) sendAll(id uint32, b []byte, end bool) {
	for len(b) > 0 {
		part := b[:min(len(b), 16384)]
		b = b[len(part):]
		r.take(id, len(part))
		r.write(func() { r.WriteData(id, end && len(b) == 0, part) })
	}
}

func stateOf(r *rig, addr string) string {
	for _, b := range r.pools["pool"].Backends() {
		if st := b.Snapshot(time.Now()); st.Address == addr {
			return st.State
		}
	}
	return "gone"
}

// A backend that can't be connected to is a failure: it is ejected, and the call
// goes on. With nobody left the call is UNAVAILABLE at once.
func TestNoConnection(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	dead := l.Addr().String()
	l.Close()
	b := serveRaw(t, nil, echo("b"))
	r := newRig(t, backends{"pool": {dead, b.addr}}, nil)
	c := rawClient(t, r.front.Addr().String())
	for id := uint32(1); id < 40; id += 2 {
		c.request(id, true)
		if text, status := c.outcome(id); text != "b" {
			t.Fatalf("%q %q", text, status)
		}
	}
	if st := stateOf(r, dead); st != "ejected" {
		t.Errorf("the dead one is %s", st)
	}
	rec := r.ended(20)
	if len(rec[0].Attempts) != 2 || rec[0].Attempts[0].Connected || rec[0].Attempts[0].Addr != dead {
		t.Errorf("%+v", rec[0].Attempts)
	}
	r = newRig(t, backends{"pool": {dead}}, nil)
	c = rawClient(t, r.front.Addr().String())
	c.request(1, true)
	if _, status := c.outcome(1); status != "14 sluice: no backend is left to try in pool pool: "+dead+" connection refused" {
		t.Errorf("%q", status)
	}
	if rec := r.ended(1)[0]; rec.Status != 502 || rec.RPC.Status != 14 || rec.Reason != accesslog.ConnectFailed {
		t.Errorf("%+v", rec)
	}
}

// A backend that accepts and says nothing has connect_timeout.
func TestSilentBackend(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	t.Cleanup(func() { l.Close() })
	b := serveRaw(t, nil, echo("b"))
	r := newRig(t, backends{"pool": {l.Addr().String(), b.addr}}, func(c *config.Listener) { c.ConnectTimeout = 100 * time.Millisecond })
	c := rawClient(t, r.front.Addr().String())
	c.request(1, true)
	if text, status := c.outcome(1); text != "b" {
		t.Errorf("%q %q", text, status)
	}
	if st := stateOf(r, l.Addr().String()); st != "ejected" {
		t.Errorf("it is %s", st)
	}
}

// A connection that goes away is no failure of its backend, which may be the only
// one: the call is opened on another.
func TestOnlyBackendGoesAway(t *testing.T) {
	a := serveRaw(t, nil, func(r *raw, nth int) {
		if nth == 0 {
			goes(r, nth)
			return
		}
		echo("a")(r, nth)
	})
	r := newRig(t, backends{"pool": {a.addr}}, nil)
	c := rawClient(t, r.front.Addr().String())
	for id := uint32(1); id < 20; id += 2 {
		c.request(id, true)
		if text, status := c.outcome(id); text != "a" {
			t.Fatalf("%q %q", text, status)
		}
	}
	if n := a.connections(); n != 2 {
		t.Errorf("%d connections", n)
	}
}

// More calls than a connection takes: others are opened, and calls wait for them.
func TestMaxConcurrentStreams(t *testing.T) {
	for _, most := range []uint32{1, 3} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			release := make(chan struct{})
			a := serveRaw(t, []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: most}}, func(r *raw, _ int) {
				var ids []uint32
				open := uint32(0)
				frames := make(chan http2.FrameHeader, 1000)
				go func() {
					defer close(frames)
					for {
						f, err := r.next()
						if err != nil {
							return
						}
						if h, ok := f.(*http2.MetaHeadersFrame); ok {
							frames <- h.FrameHeader
						}
					}
				}()
				wait := release
				for {
					select {
					case h, ok := <-frames:
						if !ok {
							return
						}
						if open++; open > most && wait != nil {
							t.Errorf("%d streams on one connection", open)
						}
						if wait == nil {
							r.answer(h.StreamID, "a")
							continue
						}
						ids = append(ids, h.StreamID)
					case <-wait:
						wait = nil
						for _, id := range ids {
							r.answer(id, "a")
						}
					}
				}
			})
			r := newRig(t, backends{"pool": {a.addr}}, nil)
			c := rawClient(t, r.front.Addr().String())
			const calls = 30
			for i := range uint32(calls) {
				c.request(2*i+1, true)
			}
			eventually(t, func() string { return fmt.Sprint(a.connections(), " connections") }, func() bool {
				return a.connections() >= calls/int(most)
			})
			time.Sleep(20 * time.Millisecond)
			close(release)
			done := map[uint32]bool{}
			for len(done) < calls {
				f, err := c.next()
				if err != nil {
					t.Fatal(err)
				}
				if h, ok := f.(*http2.MetaHeadersFrame); ok && h.StreamEnded() {
					if get(h, "grpc-status") != "0" {
						t.Errorf("%v", h.Fields)
					}
					done[h.StreamID] = true
				}
			}
		})
	}
}
