// SPDX-License-Identifier: Apache-2.0

package grpc_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"sluice/accesslog"
	"sluice/config"
	"sluice/pool"
	"sluice/session"
)

// load is clients that call without a pause.
type load struct {
	done   atomic.Int64
	failed atomic.Int64
	mu     sync.Mutex
	errs   map[string]int
	stop   chan struct{}
	wg     sync.WaitGroup
}

func newLoad(r *rig, clients int) *load {
	l := &load{errs: map[string]int{}, stop: make(chan struct{})}
	for range clients {
		c := testgrpc.NewTestServiceClient(r.client())
		l.wg.Add(1)
		go func() {
			defer l.wg.Done()
			for {
				select {
				case <-l.stop:
					return
				default:
				}
				if _, err := tryCall(c); err != nil {
					l.failed.Add(1)
					l.mu.Lock()
					l.errs[err.Error()]++
					l.mu.Unlock()
				}
				l.done.Add(1)
			}
		}()
	}
	return l
}

func (l *load) end() {
	close(l.stop)
	l.wg.Wait()
}

// more waits for so many calls more.
func (l *load) more(t *testing.T, n int64) {
	t.Helper()
	until := l.done.Load() + n
	eventually(t, func() string { return fmt.Sprintf("%d calls, want %d", l.done.Load(), until) }, func() bool { return l.done.Load() >= until })
}

// A backend that dies among many clients: the calls in flight on it end, no other
// fails; back, it has calls again.
func TestBackendDies(t *testing.T) {
	a, b := newServer(t, "a"), newServer(t, "b")
	r := newRig(t, backends{"pool": nil}, nil)
	list := specs([]string{a.addr, b.addr})
	list[0].FailTimeout, list[1].FailTimeout = time.Second, time.Second
	r.pools["pool"].Apply(pool.Options{Balance: config.RoundRobin, TryEjected: true}, list, time.Now())
	l := newLoad(r, 50)
	l.more(t, 1000)
	a.Stop()
	l.more(t, 1000)
	if n := l.failed.Load(); n > 50 {
		t.Errorf("%d calls failed: %v", n, l.errs)
	}
	l.mu.Lock()
	for text := range l.errs {
		if !strings.Contains(text, "code = Unavailable desc = sluice: "+a.addr) {
			t.Errorf("a call failed otherwise: %s", text)
		}
	}
	l.mu.Unlock()
	before := l.failed.Load()
	l.more(t, 1000)
	if n := l.failed.Load(); n != before {
		t.Errorf("%d calls failed later: %v", n-before, l.errs)
	}
	back := newServerAt(t, "a", a.addr)
	eventually(t, func() string { return "no call since it is back" }, func() bool { return back.count() > 100 })
	if n := l.failed.Load(); n != before {
		t.Errorf("%d calls failed at its return: %v", n-before, l.errs)
	}
	l.end()
}

// A backend that ends in order (GOAWAY, then the calls it has) costs no call.
func TestBackendLeaves(t *testing.T) {
	a, b := newServer(t, "a"), newServer(t, "b")
	r := newRig(t, backends{"pool": {a.addr, b.addr}}, nil)
	l := newLoad(r, 20)
	l.more(t, 300)
	a.GracefulStop()
	l.more(t, 300)
	l.end()
	if n := l.failed.Load(); n != 0 {
		t.Errorf("%d calls failed: %v", n, l.errs)
	}
}

// Edits of routes and pools under load: no call fails, and none goes where the
// file no longer has it.
func TestEditsUnderLoad(t *testing.T) {
	a, b, d := newServer(t, "a"), newServer(t, "b"), newServer(t, "c")
	r := newRig(t, backends{"pool": {a.addr, b.addr}, "other": {d.addr}}, nil)
	l := newLoad(r, 20)
	options := pool.Options{Balance: config.RoundRobin, TryEjected: true}
	route := *r.conf
	route.GRPC = &config.GRPC{Connections: 1, Routes: []config.Route{{Methods: []string{"/grpc.testing.TestService/"}, Pool: "other"}}}
	for i := range 60 {
		addrs := [][]string{{a.addr}, {b.addr}, {a.addr, b.addr}}[i%3]
		r.sessions.Update(func() { r.pools["pool"].Apply(options, specs(addrs), time.Now()) })
		if i%2 == 0 {
			r.serve(&route)
		} else {
			r.serve(r.conf)
		}
		l.more(t, 20)
	}
	r.serve(&route)
	l.more(t, 100)
	before := a.count() + b.count()
	l.more(t, 100)
	if n := a.count() + b.count(); n != before {
		t.Errorf("%d calls went to the old pool", n-before)
	}
	l.end()
	if n := l.failed.Load(); n != 0 {
		t.Errorf("%d calls failed: %v", n, l.errs)
	}
}

// stream is a call that is under way, having had one answer.
func stream(t *testing.T, ctx context.Context, c testgrpc.TestServiceClient) testgrpc.TestService_FullDuplexCallClient {
	t.Helper()
	s, err := c.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := turn(s); err != nil {
		t.Fatal(err)
	}
	return s
}

// turn sends a message and gets one.
func turn(s testgrpc.TestService_FullDuplexCallClient) error {
	err := s.Send(&testgrpc.StreamingOutputCallRequest{ResponseParameters: []*testgrpc.ResponseParameters{{Size: 1}}})
	if err == nil {
		_, err = s.Recv()
	}
	return err
}

// A backend that is removed gets no new calls; those under way go on, or are cut,
// never the client's connection.
func TestRemovedBackend(t *testing.T) {
	a, b := newServer(t, "a"), newServer(t, "b")
	r := newRig(t, backends{"pool": {a.addr}}, nil)
	c := testgrpc.NewTestServiceClient(r.client())
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	s := stream(t, ctx, c)
	var removed []*pool.Backend
	r.sessions.Update(func() {
		removed = r.pools["pool"].Apply(pool.Options{Balance: config.RoundRobin}, specs([]string{b.addr}), time.Now())
	})
	for range 10 {
		if got := call(t, c); got != "b" {
			t.Fatalf("a call went to %s", got)
		}
	}
	if err := turn(s); err != nil {
		t.Errorf("the call under way: %v", err)
	}
	r.calls.Cut(removed)
	if _, err := s.Recv(); status.Convert(err).Message() != "sluice: its backend has been removed" || status.Code(err) != 14 {
		t.Errorf("the call that is cut: %v", err)
	}
	call(t, c)
	if got := connections(r); got.Clients != 1 {
		t.Errorf("%d connections", got.Clients)
	}
	for _, rec := range r.ended(12) {
		if at := rec.Attempts[0].Addr; at == a.addr && (rec.Reason != accesslog.Removed || rec.RPC.Status != 14 || rec.Status != 200) {
			t.Errorf("%+v", rec)
		}
	}
	eventually(t, func() string { return fmt.Sprintf("%d connections to backends", connections(r).Backends) }, func() bool { return connections(r).Backends == 1 })
}

// A stop: clients are told to go, calls end by themselves.
func TestDrain(t *testing.T) {
	a := newServer(t, "a")
	r := newRig(t, backends{"pool": {a.addr}}, nil)
	conn := r.client()
	c := testgrpc.NewTestServiceClient(conn)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	s := stream(t, ctx, c)
	idle := r.client()
	call(t, testgrpc.NewTestServiceClient(idle))
	r.calls.Drain()
	eventually(t, func() string { return fmt.Sprintf("%d connections", connections(r).Clients) }, func() bool { return connections(r).Clients == 1 })
	for range 5 {
		if err := turn(s); err != nil {
			t.Fatal(err)
		}
	}
	if n := r.sessions.Live(); n != 2 {
		t.Errorf("%d sessions are live, want the call and its connection", n)
	}
	s.CloseSend()
	if _, err := s.Recv(); err == nil || err.Error() != "EOF" {
		t.Errorf("%v", err)
	}
	select {
	case <-r.sessions.Idle():
	case <-time.After(10 * time.Second):
		t.Errorf("%d sessions are left", r.sessions.Live())
	}
}

// A reset: calls end UNAVAILABLE, at once.
func TestResetAll(t *testing.T) {
	a := newServer(t, "a")
	r := newRig(t, backends{"pool": {a.addr}}, nil)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	s := stream(t, ctx, testgrpc.NewTestServiceClient(r.client()))
	r.calls.ResetAll()
	if _, err := s.Recv(); status.Convert(err).Message() != "sluice: it stops" || status.Code(err) != 14 {
		t.Errorf("%v", err)
	}
	if rec := r.ended(1)[0]; rec.Reason != accesslog.Shutdown || rec.Status != 200 || rec.RPC.Status != 14 {
		t.Errorf("%+v", rec)
	}
}

// idle_timeout ends a call without a byte, and a connection without a call.
func TestIdleTimeout(t *testing.T) {
	a := newServer(t, "a")
	r := newRig(t, backends{"pool": {a.addr}}, func(c *config.Listener) { c.IdleTimeout = 300 * time.Millisecond })
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	s := stream(t, ctx, testgrpc.NewTestServiceClient(r.client()))
	if _, err := s.Recv(); status.Code(err) != 14 || status.Convert(err).Message() != "sluice: no byte for 300ms" {
		t.Errorf("%v", err)
	}
	if rec := r.ended(1)[0]; rec.Reason != accesslog.IdleTimeout {
		t.Errorf("%+v", rec)
	}
	eventually(t, func() string { return "the connection is still there" }, func() bool { return connections(r).Clients == 0 })
}

// max_age ends a connection: the calls it has then may take drain_timeout.
func TestMaxAge(t *testing.T) {
	a := newServer(t, "a")
	r := newRig(t, backends{"pool": {a.addr}}, func(c *config.Listener) { c.MaxAge = 200 * time.Millisecond })
	c := testgrpc.NewTestServiceClient(r.client())
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	s := stream(t, ctx, c)
	before := r.calls
	_ = before
	seen := map[string]bool{}
	for end := time.Now().Add(2500 * time.Millisecond); time.Now().Before(end); {
		if _, err := tryCall(c); err != nil {
			t.Fatal(err)
		}
		r.mu.Lock()
		seen[r.records[len(r.records)-1].Client.AddrPort.String()] = true
		r.mu.Unlock()
	}
	if len(seen) < 2 {
		t.Errorf("%d connections in all", len(seen))
	}
	if err := turn(s); err != nil {
		t.Errorf("the call under way: %v", err)
	}
	if _, err := s.Recv(); status.Code(err) != 14 || status.Convert(err).Message() != "sluice: the connection is too old" {
		t.Errorf("%v", err)
	}
}

// Clients that new rules refuse are told to go.
func TestForbidden(t *testing.T) {
	a := newServer(t, "a")
	r := newRig(t, backends{"pool": {a.addr}}, nil)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	s := stream(t, ctx, testgrpc.NewTestServiceClient(r.client()))
	conf := *r.conf
	conf.Deny = []config.Rule{{All: true}}
	r.serve(&conf)
	r.calls.CutForbidden(map[string]*session.Settings{"front": {Config: &conf}})
	if _, err := s.Recv(); status.Code(err) != 14 {
		t.Errorf("%v", err)
	}
	eventually(t, func() string { return "the connection is still there" }, func() bool { return connections(r).Clients == 0 })
}

// An address that no listener has any more: its connections are told to go.
func TestListenerGoes(t *testing.T) {
	a := newServer(t, "a")
	r := newRig(t, backends{"pool": {a.addr}}, nil)
	call(t, testgrpc.NewTestServiceClient(r.client()))
	r.front.Close(time.Second)
	eventually(t, func() string { return "the connection is still there" }, func() bool { return connections(r).Clients == 0 })
}

// The end of the engine waits for nobody: not for a connection that is being made,
// nor for one that has just come.
func TestCloseWaitsForNobody(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	defer l.Close()
	r := newRig(t, backends{"pool": {"192.0.2.1:1", l.Addr().String()}}, func(c *config.Listener) { c.ConnectTimeout = time.Minute })
	for range 10 {
		c := rawClient(t, r.front.Addr().String())
		c.request(1, true)
		c.request(3, true)
	}
	eventually(t, func() string { return "no calls" }, func() bool { return r.settings.Counters.Active.Load() > 10 })
	for range 20 {
		rawClient(t, r.front.Addr().String())
	}
	begun := time.Now()
	r.calls.Close()
	if d := time.Since(begun); d > 5*time.Second {
		t.Errorf("it took %s", d)
	}
	r.ended(1)
}

// With the last client gone, so are the connections to backends.
func TestNothingIsLeft(t *testing.T) {
	a, b := newServer(t, "a"), newServer(t, "b")
	r := newRig(t, backends{"pool": {a.addr, b.addr}}, nil)
	c := r.client()
	for range 4 {
		call(t, testgrpc.NewTestServiceClient(c))
	}
	c.Close()
	begun := time.Now()
	eventually(t, func() string { return fmt.Sprintf("%+v", connections(r)) }, func() bool {
		s := connections(r)
		return s.Clients == 0 && s.Backends == 0
	})
	if d := time.Since(begun); d > 5*time.Second {
		t.Errorf("after %s", d)
	}
}
