// SPDX-License-Identifier: Apache-2.0

package grpc_test

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	testgrpc "google.golang.org/grpc/interop/grpc_testing"

	"sluice/accesslog"
	"sluice/config"
	"sluice/pool"
	"sluice/stats"
)

// Calls of one connection go to each backend in turn.
func TestBalancedPerCall(t *testing.T) {
	for _, n := range []int{2, 3} {
		t.Run(fmt.Sprint(n, " backends"), func(t *testing.T) {
			var servers []*server
			var addrs []string
			for i := range n {
				s := newServer(t, string(rune('a'+i)))
				servers, addrs = append(servers, s), append(addrs, s.addr)
			}
			r := newRig(t, backends{"pool": addrs}, nil)
			c := testgrpc.NewTestServiceClient(r.client())
			var order strings.Builder
			for range 20 * n {
				order.WriteString(call(t, c))
			}
			if want := strings.Repeat("abc"[:n], 20); order.String() != want {
				t.Errorf("the order was %s", order.String())
			}
			for _, s := range servers {
				if s.count() != 20 {
					t.Errorf("%s had %d calls, want 20", s.name, s.count())
				}
			}
			if got := connections(r); got.Clients != 1 || got.Backends != int64(n) {
				t.Errorf("%d connections of clients, %d to backends", got.Clients, got.Backends)
			}
		})
	}
}

func connections(r *rig) *stats.CallStats { return r.settings.Counters.Calls().Snapshot() }

// Calls at once, over many connections: the order is the pool's, so that each
// backend has the same number.
func TestManyClients(t *testing.T) {
	a, b, d := newServer(t, "a"), newServer(t, "b"), newServer(t, "c")
	r := newRig(t, backends{"pool": {a.addr, b.addr, d.addr}}, nil)
	var wg sync.WaitGroup
	for range 20 {
		c := testgrpc.NewTestServiceClient(r.client())
		for range 5 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for range 30 {
					if _, err := tryCall(c); err != nil {
						t.Error(err)
						return
					}
				}
			}()
		}
	}
	wg.Wait()
	if a.count() != 1000 || b.count() != 1000 || d.count() != 1000 {
		t.Errorf("%d, %d and %d calls, want 1000 each", a.count(), b.count(), d.count())
	}
	r.ended(3000)
	if n := r.settings.Counters.Active.Load(); n != 0 {
		t.Errorf("%d calls are live", n)
	}
	if n := r.settings.Counters.Total.Load(); n != 3000 {
		t.Errorf("%d calls in all", n)
	}
}

// What a record says of a call.
func TestRecord(t *testing.T) {
	a := newServer(t, "a")
	r := newRig(t, backends{"pool": {a.addr}}, nil)
	c := testgrpc.NewTestServiceClient(r.client())
	call(t, c)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err := c.UnaryCall(ctx, &testgrpc.SimpleRequest{ResponseStatus: &testgrpc.EchoStatus{Code: 5, Message: "none"}})
	if err == nil {
		t.Fatal("no error")
	}
	got := r.ended(2)
	ok := got[0]
	if ok.RPC == nil || ok.RPC.Method != "/grpc.testing.TestService/UnaryCall" || ok.RPC.Status != 0 || ok.Status != 200 ||
		ok.Reason != accesslog.BackendClosed || ok.Datapath != "grpc" || ok.Listener != "front" || ok.Pool != "pool" {
		t.Errorf("%+v, %+v", ok, ok.RPC)
	}
	if ok.BytesReceived != 31 || ok.BytesSent != 5+2+2+10+3 || len(ok.Attempts) != 1 {
		t.Errorf("%d bytes received, %d sent, attempts %+v", ok.BytesReceived, ok.BytesSent, ok.Attempts)
	}
	if at := ok.Attempts[0]; !at.Connected || !at.GotByte || at.Addr != a.addr || at.BytesSent != ok.BytesReceived || at.BytesReceived != ok.BytesSent ||
		at.Connect > at.FirstByte || at.FirstByte > at.Session {
		t.Errorf("%+v", at)
	}
	if got[1].RPC.Status != 5 || got[1].Status != 200 {
		t.Errorf("%+v, %+v", got[1], got[1].RPC)
	}
	codes := map[int]uint64{}
	for _, n := range connections(r).Codes {
		codes[n.Code] = n.Count
	}
	if !maps.Equal(codes, map[int]uint64{0: 1, 5: 1}) {
		t.Errorf("codes %v", codes)
	}
}

// A live call is among the flows, with its bytes.
func TestFlows(t *testing.T) {
	a := newServer(t, "a")
	r := newRig(t, backends{"pool": {a.addr}}, nil)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s, err := testgrpc.NewTestServiceClient(r.client()).FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(&testgrpc.StreamingOutputCallRequest{ResponseParameters: []*testgrpc.ResponseParameters{{Size: 100}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); err != nil {
		t.Fatal(err)
	}
	flows := r.calls.Flows(10, stats.NewestFirst)
	if len(flows) != 1 {
		t.Fatalf("%d flows", len(flows))
	}
	f := flows[0].Describe(r.sessions.Clock().Now())
	if f.Datapath != "grpc" || f.Backend != a.addr || f.BytesReceived == 0 || f.BytesSent < 100 || f.Reason != "" {
		t.Errorf("%+v", f)
	}
	r.calls.Flush()
	if n := r.settings.Counters.Sent.Load(); n != f.BytesSent {
		t.Errorf("%d bytes counted, want %d", n, f.BytesSent)
	}
	cancel()
	if got := r.ended(1)[0]; got.Reason != accesslog.Cancelled || got.RPC.Status != -1 || got.Status != 200 {
		t.Errorf("%+v %+v", got, got.RPC)
	}
}

// Routes: the first that matches, by method, service, prefix and set.
func TestRoutes(t *testing.T) {
	read, write := newServer(t, "read"), newServer(t, "write")
	r := newRig(t, backends{"pool": {read.addr}, "writer": {write.addr}}, func(c *config.Listener) {
		c.GRPC.Routes = []config.Route{
			{Methods: []string{"milvus2-writes", "/grpc.testing.TestService/Unary*"}, Pool: "writer"},
		}
	})
	conn := r.client()
	if got := call(t, testgrpc.NewTestServiceClient(conn)); got != "write" {
		t.Errorf("UnaryCall went to %s", got)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := testgrpc.NewTestServiceClient(conn).EmptyCall(ctx, &testgrpc.Empty{}); err != nil {
		t.Error(err)
	}
	conn.Invoke(ctx, "/milvus.proto.milvus.MilvusService/Insert", &testgrpc.Empty{}, &testgrpc.Empty{})
	conn.Invoke(ctx, "/milvus.proto.milvus.MilvusService/Search", &testgrpc.Empty{}, &testgrpc.Empty{})
	var pools []string
	for _, rec := range r.ended(4) {
		pools = append(pools, rec.Pool)
	}
	if got := strings.Join(pools, " "); got != "writer pool writer pool" {
		t.Errorf("pools: %s", got)
	}
}

// What isn't HTTP/2 is a plain session, with nothing lost; so is a client that
// waits for its server to speak.
func TestTCPOnTheSamePort(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { fmt.Fprint(w, q.URL.Path) })}
	go web.Serve(l)
	t.Cleanup(func() { web.Close() })
	r := newRig(t, backends{"pool": {l.Addr().String()}}, nil)
	tr := &http.Transport{DisableKeepAlives: true}
	got, err := (&http.Client{Transport: tr}).Get("http://" + r.front.Addr().String() + "/v2/vectordb")
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	n, _ := got.Body.Read(b)
	got.Body.Close()
	if string(b[:n]) != "/v2/vectordb" {
		t.Errorf("got %q", b[:n])
	}
	rec := r.ended(1)[0]
	if rec.RPC != nil || rec.Datapath != "relay" || rec.Status != 200 {
		t.Errorf("%+v", rec)
	}
	if active, total := r.settings.Counters.Active.Load(), r.settings.Counters.Total.Load(); active != 0 || total != 1 {
		t.Errorf("%d active, %d in all", active, total)
	}
}

// A client that begins as HTTP/2's preface does, and goes on otherwise.
func TestAlmostPreface(t *testing.T) {
	for _, sent := range []string{"PRI * HTTP/1.1\r\n", "P", ""} {
		t.Run(fmt.Sprintf("%q", sent), func(t *testing.T) {
			l := listen(t, "127.0.0.1:0")
			defer l.Close()
			r := newRig(t, backends{"pool": {l.Addr().String()}}, nil)
			c, err := net.Dial("tcp", r.front.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			fmt.Fprint(c, sent)
			if len(sent) < 2 {
				c.(*net.TCPConn).CloseWrite()
			}
			b, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			got := make([]byte, len(sent))
			b.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := b.Read(got); err != nil && sent != "" {
				t.Error(err)
			}
			if string(got) != sent {
				t.Errorf("the backend got %q", got)
			}
		})
	}
}

// A server that speaks first is reached after three seconds of silence.
func TestServerGreets(t *testing.T) {
	t.Parallel()
	l := listen(t, "127.0.0.1:0")
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(c, "hello")
			c.Close()
		}
	}()
	r := newRig(t, backends{"pool": {l.Addr().String()}}, nil)
	begun := time.Now()
	c, err := net.Dial("tcp", r.front.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(15 * time.Second))
	b := make([]byte, 6)
	if n, err := c.Read(b); err != nil || string(b[:n]) != "hello\n" {
		t.Fatalf("%q, %v", b[:n], err)
	}
	if d := time.Since(begun); d < 2900*time.Millisecond {
		t.Errorf("after %s", d)
	}
}

// Limits and rules are a connection's: refused before its first call it has a
// line of its own, of TCP.
func TestAdmission(t *testing.T) {
	a := newServer(t, "a")
	for name, tt := range map[string]struct {
		change func(*config.Listener)
		first  bool // the first connection is let in
		status int
	}{
		"deny":             {func(c *config.Listener) { c.Deny = []config.Rule{{All: true}} }, false, 403},
		"max_conns":        {func(c *config.Listener) { c.MaxConns = 1 }, true, 503},
		"max_conns_per_ip": {func(c *config.Listener) { c.MaxConnsPerIP = 1 }, true, 503},
		"bad header":       {func(c *config.Listener) { c.ProxyAccept = true }, false, 400},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, backends{"pool": {a.addr}}, tt.change)
			n := 0
			if tt.first {
				c := testgrpc.NewTestServiceClient(r.client())
				for range 3 { // calls are no connections
					call(t, c)
				}
				n = 3
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			if _, err := testgrpc.NewTestServiceClient(r.client()).EmptyCall(ctx, &testgrpc.Empty{}); err == nil {
				t.Error("served")
			}
			rec := r.ended(n + 1)[n]
			if rec.Status != tt.status || rec.RPC != nil {
				t.Errorf("%+v", rec)
			}
		})
	}
}

// max_conns of a backend counts calls.
func TestBackendMaxConns(t *testing.T) {
	a, b := newServer(t, "a"), newServer(t, "b")
	r := newRig(t, backends{"pool": nil}, nil)
	list := specs([]string{a.addr, b.addr})
	list[0].MaxConns, list[1].MaxConns = 1, 2
	r.pools["pool"].Apply(pool.Options{Balance: config.RoundRobin}, list, time.Now())
	c := testgrpc.NewTestServiceClient(r.client())
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for range 3 {
		s, err := c.FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Send(&testgrpc.StreamingOutputCallRequest{ResponseParameters: []*testgrpc.ResponseParameters{{Size: 1}}}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	_, err := tryCall(c)
	if err == nil || !strings.Contains(err.Error(), "Unavailable desc = sluice: no backend is left") {
		t.Errorf("%v", err)
	}
	if rec := r.ended(1)[0]; rec.Status != 502 || rec.Reason != accesslog.NoBackend || rec.RPC.Status != 14 || rec.Datapath != "" {
		t.Errorf("%+v %+v", rec, rec.RPC)
	}
	// Who waits for the end of a call before the next is never refused.
	cancel()
	r.ended(4)
	for range 200 {
		call(t, c)
	}
}
