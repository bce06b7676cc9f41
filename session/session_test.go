// SPDX-License-Identifier: Apache-2.0

package session

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/accesslog"
	"sluice/config"
	"sluice/pool"
	"sluice/stats"
)

var client = netip.MustParseAddrPort("198.18.0.7:4000")

// bench is a listener with its pool, a carrier's part and what came out.
type rig struct {
	t       *testing.T
	reg     *Registry
	source  Source
	records []accesslog.Record
	lines   int
	offered uint32 // what dispatch has picked; 0: nothing
	endings int
	now     int64
}

func (r *rig) Follow() *Settings { return r.source.Load() }

func (r *rig) Redeem(_, _ netip.AddrPort) (uint32, bool) { return r.offered, r.offered != 0 }

func (r *rig) Ended(_, _ netip.AddrPort) { r.endings++ }

func newRig(t *testing.T, c config.Listener, backends ...pool.Spec) *rig {
	r := &rig{t: t}
	r.reg = NewRegistry(Options{Dispatch: r, Record: func(rec *accesslog.Record, line bool) {
		kept := *rec
		kept.Attempts = append([]accesslog.Attempt(nil), rec.Attempts...)
		r.records = append(r.records, kept)
		if line {
			r.lines++
		}
	}})
	r.now = r.reg.Clock().Now()
	r.put("l", "p", c, backends...)
	return r
}

// put has a listener of this name and its pool in force.
func (r *rig) put(listener, name string, c config.Listener, backends ...pool.Spec) {
	p := pool.New(name, nil, nil)
	p.Apply(pool.Options{}, backends, time.Now())
	c.Name = listener
	if c.AccessLog == "" {
		c.AccessLog = config.LogOn
	}
	set := &Settings{Config: &c, Pool: p, Counters: stats.NewListener(listener), Limits: NewLimits()}
	r.reg.Update(func() { r.source.Store(set) })
}

func (r *rig) begin(from netip.AddrPort) *Session {
	s := &Session{}
	r.reg.Arrived()
	s.Begin(r.reg, from, r.now)
	return s
}

// choose has every end that has arrived seen to before a session is refused.
func (r *rig) choose(s *Session) Verdict {
	v := s.Choose(r, r.now)
	for v == Crowded {
		v = s.Again(r, false, r.now)
	}
	return v
}

func (r *rig) end(s *Session, status int, reason accesslog.EndReason, t Totals) {
	var rec accesslog.Record
	s.End(&Outcome{Status: status, Reason: reason, Totals: t, Datapath: "relay", UpstreamRetrans: -1}, &rec, r.now)
	s.Left()
}

func spec(port uint16) pool.Spec {
	return pool.Spec{Addr: pool.Addr{AddrPort: netip.AddrPortFrom(netip.MustParseAddr("198.18.0.1"), port)}, Weight: 1, MaxFails: 1, FailTimeout: time.Minute}
}

func everybody() []config.Rule { return []config.Rule{{All: true}} }

func TestChoose(t *testing.T) {
	down := spec(1)
	down.State = config.Down
	tests := []struct {
		name     string
		listener config.Listener
		backends []pool.Spec
		want     Verdict
		status   int
		reason   accesslog.EndReason
	}{
		{"picked", config.Listener{}, []pool.Spec{spec(1)}, Picked, 0, ""},
		{"denied", config.Listener{Deny: everybody()}, []pool.Spec{spec(1)}, Denied, 403, accesslog.Denied},
		{"denied before the header", config.Listener{Deny: everybody(), ProxyAccept: true}, []pool.Spec{spec(1)}, Denied, 403, accesslog.Denied},
		{"wants a header", config.Listener{ProxyAccept: true}, []pool.Spec{spec(1)}, WantsHeader, 0, ""},
		{"nobody", config.Listener{}, []pool.Spec{down}, NoBackend, 502, accesslog.NoBackend},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, tt.listener, tt.backends...)
			s := r.begin(client)
			got := s.Choose(r, r.now)
			if got != tt.want {
				t.Fatalf("verdict %d, want %d", got, tt.want)
			}
			if (s.Backend != nil) != (got == Picked) {
				t.Errorf("backend %v", s.Backend)
			}
			if tt.status == 0 {
				return
			}
			status, reason := s.Refusal(got)
			if status != tt.status || reason != tt.reason {
				t.Errorf("%d %s, want %d %s", status, reason, tt.status, tt.reason)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	other := netip.MustParseAddrPort("198.18.0.8:1")
	unix := netip.AddrPort{}
	tests := []struct {
		name         string
		max, maxPer  int
		come         []netip.AddrPort
		refusedAfter int
	}{
		{"in all", 2, 0, []netip.AddrPort{client, other, unix}, 2},
		{"for an address", 0, 1, []netip.AddrPort{other, unix, unix, client, client}, 4},
		{"none", 0, 0, []netip.AddrPort{client, client, client}, 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, config.Listener{MaxConns: tt.max, MaxConnsPerIP: tt.maxPer}, spec(1))
			var in []*Session
			for i, from := range tt.come {
				s := r.begin(from)
				want := Picked
				if i >= tt.refusedAfter {
					want = Limited
				}
				if got := r.choose(s); got != want {
					t.Fatalf("session %d: %d, want %d", i, got, want)
				}
				if want == Limited {
					r.end(s, 503, accesslog.Limited, Totals{})
				} else {
					in = append(in, s)
				}
			}
			for _, s := range in { // their places are free again
				r.end(s, 200, accesslog.ClientClosed, Totals{})
			}
			s := r.begin(client)
			if got := s.Choose(r, r.now); got != Picked {
				t.Errorf("afterwards: %d", got)
			}
		})
	}
}

// TestRetry: a failure is followed by the next pick, in the pool that the
// listener has by then, as often as the file allows.
func TestRetry(t *testing.T) {
	r := newRig(t, config.Listener{}, spec(1), spec(2))
	s := r.begin(client)
	s.Choose(r, r.now)
	first := s.Backend.Addr.String()
	r.put("l", "q", config.Listener{}, spec(1), spec(3))
	if v := s.Failed(r, BackendFault, "refused", Totals{}, r.now); v != Picked || s.Backend.Addr.AddrPort.Port() == 1 && first == "198.18.0.1:1" {
		t.Fatalf("verdict %d, %v after %s", v, s.Backend, first)
	}
	s.Reached(r.now + int64(time.Millisecond))
	s.First = r.now + int64(2*time.Millisecond)
	r.now += int64(3 * time.Millisecond)
	r.end(s, 200, accesslog.BackendClosed, Totals{5, 9, 9, 5})
	rec := r.records[0]
	if rec.Pool != "q" || len(rec.Attempts) != 2 || rec.Attempts[0].Connected || !rec.Attempts[1].Connected || rec.Datapath != "relay" {
		t.Errorf("%+v", rec)
	}
	if a := rec.Attempts[1]; a.Connect != time.Millisecond || a.FirstByte != 2*time.Millisecond || a.Session != 3*time.Millisecond || a.BytesSent != 5 || a.BytesReceived != 9 {
		t.Errorf("%+v", a)
	}
}

func TestAttemptsEnd(t *testing.T) {
	tests := []struct {
		name   string
		c      config.Listener
		fault  Fault
		wait   time.Duration
		want   []Verdict
		status int
		reason accesslog.EndReason
	}{
		{"all failed", config.Listener{}, BackendFault, 0, []Verdict{Picked, Exhausted}, 502, accesslog.ConnectFailed},
		{"tries", config.Listener{Tries: 1}, BackendFault, 0, []Verdict{Exhausted}, 502, accesslog.ConnectFailed},
		{"time", config.Listener{TryTimeout: time.Second}, BackendFault, time.Second, []Verdict{Exhausted}, 502, accesslog.ConnectFailed},
		{"a lack of ours", config.Listener{}, Lack, 0, []Verdict{Exhausted}, 500, accesslog.Internal},
		{"a lack toward each", config.Listener{}, LackToward, 0, []Verdict{Picked, Exhausted}, 500, accesslog.Internal},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, tt.c, spec(1), spec(2))
			s := r.begin(client)
			s.Choose(r, r.now)
			r.now += int64(tt.wait)
			var last Verdict
			for i, want := range tt.want {
				if last = s.Failed(r, tt.fault, "refused", Totals{}, r.now); last != want {
					t.Fatalf("failure %d: %d, want %d", i, last, want)
				}
			}
			status, reason := s.Refusal(last)
			if status != tt.status || reason != tt.reason {
				t.Errorf("%d %s", status, reason)
			}
			ejected := 0
			for _, b := range s.Pool().Backends() {
				if b.Snapshot(time.Now()).State == "ejected" {
					ejected++
				}
			}
			if (ejected > 0) != (tt.fault == BackendFault) {
				t.Errorf("%d ejected", ejected)
			}
			r.end(s, status, reason, Totals{})
			if n := len(r.records[0].Attempts); n != len(tt.want) {
				t.Errorf("%d attempts in the record", n)
			}
		})
	}
}

// TestHeader: a session that waits for its header goes by the settings that are
// in force when it is there, and is counted there alone.
func TestHeader(t *testing.T) {
	r := newRig(t, config.Listener{ProxyAccept: true}, spec(1))
	before := r.source.Load()
	s := r.begin(client)
	s.Choose(r, r.now)
	r.put("m", "q", config.Listener{ProxyAccept: true}, spec(2))
	s.Named(netip.MustParseAddrPort("203.0.113.5:9"))
	r.offered = 1 // no pick of the kernel's is for who a header names
	if v := s.Choose(r, r.now); v != Picked || s.Backend.Addr.AddrPort.Port() != 2 {
		t.Fatalf("verdict %d, %v", v, s.Backend)
	}
	after := r.source.Load()
	if before.Counters.Total.Load() != 0 || before.Counters.Active.Load() != 0 || after.Counters.Total.Load() != 1 || after.Counters.Active.Load() != 1 {
		t.Errorf("counted %d/%d and %d/%d", before.Counters.Active.Load(), before.Counters.Total.Load(), after.Counters.Active.Load(), after.Counters.Total.Load())
	}
	s.Reached(r.now)
	r.end(s, 200, accesslog.ClientClosed, Totals{})
	if rec := r.records[0]; rec.Listener != "m" || rec.Pool != "q" || rec.ProxyAddr != s.Client || rec.Client.AddrPort != s.Client {
		t.Errorf("%+v", rec)
	}
}

// TestOffered: the kernel's pick is taken, and the end of a connection told.
func TestOffered(t *testing.T) {
	r := newRig(t, config.Listener{}, spec(1), spec(2))
	set := *r.source.Load()
	set.Dispatched = true
	r.source.Store(&set)
	for _, b := range set.Pool.Backends() {
		if b.Addr.AddrPort.Port() == 2 {
			r.offered = b.ID
		}
	}
	s := r.begin(client)
	if v := s.Choose(r, r.now); v != Picked || s.Backend.ID != r.offered {
		t.Errorf("verdict %d, %v", v, s.Backend)
	}
	r.end(s, 200, accesslog.ClientClosed, Totals{})
	if r.endings != 1 {
		t.Errorf("told %d ends", r.endings)
	}
}

// TestMoved: counters get each byte once, and never fall.
func TestMoved(t *testing.T) {
	r := newRig(t, config.Listener{}, spec(1))
	s := r.begin(client)
	s.Choose(r, r.now)
	s.Reached(r.now)
	for _, t := range []Totals{{1, 2, 3, 4}, {10, 20, 30, 40}, {10, 15, 30, 40}} {
		s.Moved(t)
	}
	c := s.Settings.Counters
	b := s.Backend.Snapshot(time.Now())
	if c.Received.Load() != 10 || c.Sent.Load() != 20 || b.Received != 30 || b.Sent != 40 {
		t.Errorf("%d %d %d %d", c.Received.Load(), c.Sent.Load(), b.Received, b.Sent)
	}
	flow := s.Flow(Totals{1, 2, 3, 4}, Splice, r.now)
	f := flow.Describe(r.now + int64(time.Second))
	if f.BytesReceived != 1 || f.BytesSent != 2 || f.Datapath != "splice" || f.IdleSeconds != 1 || f.AgeSeconds != 1 || f.Client != client.String() || f.Backend != "198.18.0.1:1" {
		t.Errorf("%+v", f)
	}
}

// TestOneEnd: who ends takes its place with it, and Idle tells when all have.
func TestOneEnd(t *testing.T) {
	r := newRig(t, config.Listener{AccessLog: config.LogNonempty}, spec(1))
	a, b := r.begin(client), r.begin(netip.AddrPort{})
	a.Choose(r, r.now)
	b.Choose(r, r.now)
	b.Reached(r.now)
	idle := r.reg.Idle()
	r.end(a, 200, accesslog.Shutdown, Totals{})
	select {
	case <-idle:
		t.Error("idle with a session")
	default:
	}
	r.end(b, 200, accesslog.ClientClosed, Totals{FromClient: 1})
	<-idle
	if r.reg.Live() != 0 || r.source.Load().Counters.Active.Load() != 0 || b.Pool().Backends()[0].Snapshot(time.Now()).Active != 0 {
		t.Error("something is still counted")
	}
	if len(r.records) != 2 || r.lines != 1 {
		t.Errorf("%d records, %d lines", len(r.records), r.lines)
	}
	if rec := r.records[0]; rec.Datapath != "" || strings.Contains(rec.Datapath, "relay") {
		t.Errorf("a session that reached nobody moved on %q", rec.Datapath)
	}
	if rec := r.records[1]; !rec.Client.Unix || rec.Datapath != "relay" {
		t.Errorf("%+v", rec)
	}
}
