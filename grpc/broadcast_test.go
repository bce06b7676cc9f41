// SPDX-License-Identifier: Apache-2.0

package grpc_test

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"sluice/accesslog"
	"sluice/config"
	"sluice/pool"
)

func broadcastTo(c *config.Listener) {
	c.GRPC.Routes = []config.Route{{Methods: []string{"*"}, Pool: "pool", Broadcast: true}}
}

// fails answers each call with this status, once its request is complete.
func fails(status string) func(*raw, int) {
	return func(r *raw, _ int) {
		for {
			f, err := r.next()
			if err != nil {
				return
			}
			done := false
			switch f := f.(type) {
			case *http2.MetaHeadersFrame:
				done = f.StreamEnded()
			case *http2.DataFrame:
				done = f.StreamEnded()
			}
			if done {
				r.headers(f.Header().StreamID, true, ":status", "200", "content-type", "application/grpc", "grpc-status", status, "grpc-message", "no")
			}
		}
	}
}

// A broadcast call goes to every backend; the answer is the first one's if all
// succeed, else the failure of the first that failed.
func TestBroadcast(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	dead := l.Addr().String()
	l.Close()
	for _, tt := range []struct {
		name    string
		servers []func(*raw, int) // nil: nobody listens
		sent    int
		want    string
		code    int
		status  int
	}{
		{"all succeed", []func(*raw, int){echo("a"), echo("b"), echo("c")}, 100, "a/0 ", 0, 200},
		{"a large request", []func(*raw, int){echo("a"), echo("b")}, 300 << 10, "a/0 ", 0, 200},
		{"one fails", []func(*raw, int){echo("a"), fails("5"), fails("9")}, 100, "/5 no", 5, 200},
		{"the first fails", []func(*raw, int){fails("9"), echo("b"), fails("5")}, 100, "/9 no", 9, 200},
		{"one breaks", []func(*raw, int){echo("a"), breaks, echo("c")}, 100, "/14 sluice: ADDR1 closed the connection", 14, 200},
		{"one isn't there", []func(*raw, int){echo("a"), nil, echo("c")}, 100, "/14 sluice: ADDR1 connection refused", 14, 502},
		{"one refuses", []func(*raw, int){refuse, echo("b")}, 100, "/14 sluice: ADDR0 the call was reset: REFUSED_STREAM", 14, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var addrs []string
			for _, serve := range tt.servers {
				if serve == nil {
					addrs = append(addrs, dead)
					continue
				}
				addrs = append(addrs, serveRaw(t, nil, serve).addr)
			}
			r := newRig(t, backends{"pool": addrs}, broadcastTo)
			c := rawClient(t, r.front.Addr().String())
			for id := uint32(1); id < 6; id += 2 {
				c.request(id, false)
				go c.send(id, make([]byte, tt.sent), true)
				text, status := c.outcome(id)
				want := tt.want
				for i, a := range addrs {
					want = strings.ReplaceAll(want, "ADDR"+string(rune('0'+i)), a)
				}
				if got := text + "/" + status; got != want {
					t.Fatalf("got %q, want %q", got, want)
				}
			}
			rec := r.ended(3)[2]
			if len(rec.Attempts) != len(addrs) || rec.Status != tt.status || rec.RPC.Status != tt.code || rec.Datapath != "grpc" {
				t.Fatalf("%+v, %+v", rec, rec.RPC)
			}
			for i, at := range rec.Attempts {
				if at.Addr != addrs[i] || at.Connected && at.BytesSent == 0 {
					t.Errorf("%+v", at)
				}
			}
			for _, b := range r.pools["pool"].Backends() {
				if st := b.Snapshot(time.Now()); st.Active != 0 || st.Address != dead && st.Total != 3 {
					t.Errorf("%+v", st)
				}
			}
		})
	}
}

// A broadcast call has one message.
func TestBroadcastOfSeveralMessages(t *testing.T) {
	a := serveRaw(t, nil, echo("a"))
	r := newRig(t, backends{"pool": {a.addr}}, broadcastTo)
	c := rawClient(t, r.front.Addr().String())
	c.request(1, false)
	c.WriteData(1, false, message("one"))
	c.WriteData(1, false, message("two"))
	if _, st := c.outcome(1); st != "12 sluice: a call that goes to all backends has one message, not several" {
		t.Errorf("%q", st)
	}
	if n := a.connections(); n != 0 {
		t.Errorf("%d connections to the backend", n)
	}
	if rec := r.ended(1)[0]; rec.Status != 503 || rec.RPC.Status != 12 || rec.Reason != accesslog.Limited {
		t.Errorf("%+v", rec)
	}
}

// Who gets a broadcast call: ejected and backup backends too, those that drain or
// are down not.
func TestBroadcastTo(t *testing.T) {
	a, b, d, e := serveRaw(t, nil, echo("a")), serveRaw(t, nil, echo("b")), serveRaw(t, nil, echo("c")), serveRaw(t, nil, echo("d"))
	r := newRig(t, backends{"pool": nil}, broadcastTo)
	list := specs([]string{a.addr, b.addr, d.addr, e.addr})
	list[0].Backup, list[1].State, list[2].State = true, config.Drain, config.Down
	p := r.pools["pool"]
	p.Apply(pool.Options{Balance: config.RoundRobin}, list, time.Now())
	var s pool.State
	p.Failed(p.Pick(&s, time.Now()), "refused", time.Now()) // the fourth is ejected
	c := rawClient(t, r.front.Addr().String())
	c.request(1, true)
	if text, st := c.outcome(1); text != "a" || st != "0 " {
		t.Errorf("%q %q", text, st)
	}
	rec := r.ended(1)[0]
	if len(rec.Attempts) != 2 || rec.Attempts[0].Addr != a.addr || rec.Attempts[1].Addr != e.addr {
		t.Errorf("%+v", rec.Attempts)
	}
	list[0].State, list[3].State = config.Down, config.Down
	p.Apply(pool.Options{Balance: config.RoundRobin}, list, time.Now())
	c.request(3, true)
	if _, st := c.outcome(3); st != "14 sluice: no backend is left to try in pool pool" {
		t.Errorf("%q", st)
	}
}

// A client that cancels a broadcast call cancels it everywhere.
func TestBroadcastCancelled(t *testing.T) {
	got := make(chan http2.ErrCode, 2)
	hung := func(r *raw, _ int) {
		for {
			f, err := r.next()
			if err != nil {
				return
			}
			if f, ok := f.(*http2.RSTStreamFrame); ok {
				got <- f.ErrCode
			}
		}
	}
	a, b := serveRaw(t, nil, hung), serveRaw(t, nil, hung)
	r := newRig(t, backends{"pool": {a.addr, b.addr}}, broadcastTo)
	c := rawClient(t, r.front.Addr().String())
	c.request(1, true)
	eventually(t, func() string { return "it isn't everywhere" }, func() bool { return connections(r).Backends == 2 })
	time.Sleep(50 * time.Millisecond)
	c.WriteRSTStream(1, http2.ErrCodeCancel)
	for range 2 {
		if code := <-got; code != http2.ErrCodeCancel {
			t.Errorf("%v", code)
		}
	}
	if rec := r.ended(1)[0]; rec.Reason != accesslog.Cancelled || len(rec.Attempts) != 2 {
		t.Errorf("%+v", rec)
	}
}
