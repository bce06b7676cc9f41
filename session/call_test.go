// SPDX-License-Identifier: Apache-2.0

package session

import (
	"testing"
	"time"

	"sluice/accesslog"
	"sluice/config"
	"sluice/pool"
)

// router is a rig whose calls go to the pool of the listener's one route.
type router struct {
	*rig
	all bool
}

func (r router) Route(set *Settings) *pool.Pool { return set.Calls.Routes[0] }
func (r router) Everywhere() bool               { return r.all }

// forCalls makes the rig's listener one for calls.
func (r *rig) forCalls(specs ...pool.Spec) *pool.Pool {
	p := pool.New("routed", nil, nil)
	p.Apply(pool.Options{}, specs, time.Now())
	set := *r.source.Load()
	set.Calls = &Calls{Routes: []*pool.Pool{p}}
	r.reg.Update(func() { r.source.Store(&set) })
	return p
}

// admit is a connection that carries calls.
func (r *rig) admit() *Admission {
	r.t.Helper()
	s := r.begin(client)
	if v := r.choose(s); v != WantsProtocol {
		r.t.Fatalf("verdict %d", v)
	}
	return s.Yield()
}

// A connection that carries calls is in its listener's limits, and counted
// nowhere else; one that doesn't is a session.
func TestConnectionOfCalls(t *testing.T) {
	r := newRig(t, config.Listener{MaxConns: 2}, spec(1))
	r.forCalls(spec(2))
	counters := r.source.Load().Counters
	a := r.admit()
	if counters.Active.Load() != 0 || counters.Total.Load() != 0 || r.reg.Live() != 1 {
		t.Errorf("%d active, %d in all, %d live", counters.Active.Load(), counters.Total.Load(), r.reg.Live())
	}
	s := r.begin(client)
	if v := r.choose(s); v != WantsProtocol {
		t.Fatalf("verdict %d", v)
	}
	s.Plain()
	if v := r.choose(s); v != Picked || s.Backend.Addr.String() != "198.18.0.1:1" {
		t.Fatalf("verdict %d", v)
	}
	if counters.Active.Load() != 1 || counters.Total.Load() != 1 {
		t.Errorf("%d active, %d in all", counters.Active.Load(), counters.Total.Load())
	}
	late := r.begin(client)
	if v := r.choose(late); v != Limited {
		t.Fatalf("verdict %d", v)
	}
	r.end(late, 503, accesslog.Limited, Totals{})
	if counters.Active.Load() != 1 || counters.Total.Load() != 2 {
		t.Errorf("%d active, %d in all", counters.Active.Load(), counters.Total.Load())
	}
	a.Leave()
	if s := r.begin(client); r.choose(s) != WantsProtocol {
		t.Error("the place isn't free")
	}
}

// A call takes its pool from its route, and no limit counts it; one that a
// backend hasn't taken on goes to the next, and blames nobody.
func TestCall(t *testing.T) {
	r := newRig(t, config.Listener{MaxConns: 1}, spec(1))
	p := r.forCalls(spec(2), spec(3))
	a := r.admit()
	for range 3 {
		s := &Session{}
		s.BeginCall(a, r.now)
		if v := s.Choose(router{r, false}, r.now); v != Picked || s.Pool() != p {
			t.Fatalf("verdict %d, pool %s", v, s.Pool().Name())
		}
		s.Reached(r.now)
		first := s.Backend
		if v := s.Failed(router{r, false}, Declined, "refused", Totals{ToBackend: 5}, r.now); v != Picked || s.Backend == first {
			t.Fatalf("verdict %d", v)
		}
		s.Reached(r.now)
		s.End(&Outcome{Status: 200, Datapath: "grpc", RPC: &accesslog.RPC{Method: "/s.S/M"}}, &accesslog.Record{}, r.now)
		s.Left()
		rec := r.records[len(r.records)-1]
		if len(rec.Attempts) != 2 || rec.RPC == nil || rec.Datapath != "grpc" || rec.Pool != "routed" || rec.Attempts[0].BytesSent != 5 {
			t.Errorf("%+v", rec)
		}
	}
	for _, b := range p.Backends() {
		if st := b.Snapshot(time.Now()); st.State != "up" || st.Failed != 0 || st.Active != 0 {
			t.Errorf("%+v", st)
		}
	}
	if n := r.reg.Live(); n != 1 {
		t.Errorf("%d live", n)
	}
}

// A call that goes everywhere has a leg at each backend, and one record.
func TestSpread(t *testing.T) {
	r := newRig(t, config.Listener{}, spec(1))
	p := r.forCalls(spec(2), spec(3), spec(4))
	s := &Session{}
	s.BeginCall(r.admit(), r.now)
	if v := s.Choose(router{r, true}, r.now); v != Everywhere || len(s.Legs()) != 3 {
		t.Fatalf("verdict %d, %d legs", v, len(s.Legs()))
	}
	legs := s.Legs()
	legs[0].Reached(r.now)
	legs[0].Done(Totals{ToBackend: 7, FromBackend: 8}, r.now)
	legs[1].Failed(BackendFault, "refused", Totals{}, r.now)
	legs[1].Done(Totals{}, r.now) // it is over
	legs[2].Failed(Lack, "no descriptors", Totals{}, r.now)
	s.End(&Outcome{Status: 200, Datapath: "grpc"}, &accesslog.Record{}, r.now)
	rec := r.records[0]
	if len(rec.Attempts) != 3 || rec.Datapath != "grpc" || !rec.Attempts[0].Connected || rec.Attempts[1].Connected || rec.Attempts[0].BytesReceived != 8 {
		t.Errorf("%+v", rec)
	}
	want := map[string]pool.BackendStats{"198.18.0.1:2": {State: "up", Total: 1, Sent: 7}, "198.18.0.1:3": {State: "ejected", Failed: 1}, "198.18.0.1:4": {State: "up"}}
	for _, b := range p.Backends() {
		st := b.Snapshot(time.Now())
		w := want[st.Address]
		if st.State != w.State || st.Total != w.Total || st.Failed != w.Failed || st.Sent != w.Sent || st.Active != 0 {
			t.Errorf("%+v", st)
		}
	}
}
