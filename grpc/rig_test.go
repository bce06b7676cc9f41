// SPDX-License-Identifier: Apache-2.0

package grpc_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	rpc "google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/grpclog"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"

	"sluice/accesslog"
	"sluice/config"
	"sluice/grpc"
	"sluice/internal/nstest"
	"sluice/pool"
	"sluice/proxy"
	"sluice/session"
	"sluice/stats"
)

func TestMain(m *testing.M) {
	grpclog.SetLoggerV2(panics{grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard)})
	nstest.Main(m)
}

// panics is a logger for which what is fatal is a panic: the interop cases end
// that way where they fail.
type panics struct{ grpclog.LoggerV2 }

func (panics) Fatal(args ...any)                 { panic(fmt.Sprint(args...)) }
func (panics) Fatalln(args ...any)               { panic(fmt.Sprint(args...)) }
func (panics) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// rig is a listener for calls with its pools, and what it recorded.
type rig struct {
	t        testing.TB
	sessions *session.Registry
	calls    *grpc.Engine
	engine   *proxy.Engine
	front    *proxy.Front
	pools    map[string]*pool.Pool
	settings *session.Settings
	conf     *config.Listener

	mu      sync.Mutex
	records []accesslog.Record
}

// backends are the pools of a rig: names, and addresses.
type backends map[string][]string

func defaults() *config.Listener {
	return &config.Listener{
		Name: "front", Pool: "pool", Datapath: config.Auto, ConnectTimeout: 5 * time.Second,
		IdleTimeout: 10 * time.Minute, ProxySend: config.ProxyOff, HalfClose: true, Backlog: 4096, AccessLog: config.LogOn,
		GRPC: &config.GRPC{Connections: 1},
	}
}

func newRig(t testing.TB, b backends, change func(*config.Listener)) *rig {
	t.Helper()
	return newRigHolding(t, b, change, 0)
}

// newRigHolding has so many bytes wait for peers at most.
func newRigHolding(t testing.TB, b backends, change func(*config.Listener), most int64) *rig {
	t.Helper()
	r := &rig{t: t, pools: map[string]*pool.Pool{}}
	log := zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel)
	r.sessions = session.NewRegistry(session.Options{Record: func(s *accesslog.Record, logged bool) {
		if !logged {
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		c := *s
		c.Attempts = append([]accesslog.Attempt(nil), s.Attempts...)
		r.records = append(r.records, c)
	}})
	e, err := proxy.New(proxy.Options{Loops: 2, Log: log, Sessions: r.sessions, Calls: func(c *proxy.Connection) {
		r.calls.Take(&grpc.Conn{Origin: c, Admission: c.Admission, FD: c.FD, Server: c.Server, Path: c.Path, Peer: c.Peer})
	}})
	if err != nil {
		t.Fatal(err)
	}
	r.engine = e
	r.calls = grpc.New(grpc.Options{Log: log, Sessions: r.sessions, Descriptors: e, MaxHeld: most})
	t.Cleanup(func() {
		r.calls.Close()
		e.Close()
	})
	for name, addrs := range b {
		r.pools[name] = pool.New(name, nil, nil)
		r.pools[name].Apply(pool.Options{Balance: config.RoundRobin, TryEjected: true}, specs(addrs), time.Now())
	}
	r.conf = defaults()
	if change != nil {
		change(r.conf)
	}
	counters := stats.NewListener(r.conf.Name)
	counters.HasCalls()
	r.settings = &session.Settings{Config: r.conf, Counters: counters, Limits: session.NewLimits()}
	r.front, err = e.Bind(config.Address{Addr: netip.MustParseAddr("127.0.0.1")}, 4096, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	r.serve(r.conf)
	t.Cleanup(func() {
		r.front.Close(time.Minute)
		<-r.front.Done()
	})
	return r
}

// serve has the front go by conf from now on.
func (r *rig) serve(conf *config.Listener) {
	set := *r.settings
	set.Config, set.Pool = conf, r.pools["pool"]
	if conf.GRPC != nil {
		set.Calls = &session.Calls{Drain: 5 * time.Second}
		for _, route := range conf.GRPC.Routes {
			set.Calls.Routes = append(set.Calls.Routes, r.pools[route.Pool])
		}
	}
	r.sessions.Update(func() { r.front.Serve(&set) })
}

func specs(addrs []string) (out []pool.Spec) {
	for _, a := range addrs {
		s := pool.Spec{Weight: 1, MaxFails: 1, FailTimeout: 10 * time.Second, State: config.Up}
		if path, is := strings.CutPrefix(a, "unix:"); is {
			s.Addr.Unix = path
		} else {
			s.Addr.AddrPort = netip.MustParseAddrPort(a)
		}
		out = append(out, s)
	}
	return out
}

// ended waits for n records.
func (r *rig) ended(n int) []accesslog.Record {
	r.t.Helper()
	var got []accesslog.Record
	eventually(r.t, func() string { return fmt.Sprintf("%d records, want %d: %+v", len(got), n, got) }, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		got = append([]accesslog.Record(nil), r.records...)
		return len(got) >= n
	})
	return got
}

// eventually waits for a condition; what says what is the case instead.
func eventually(t testing.TB, what func() string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what())
		}
	}
}

// client is a grpc-go client of the front.
func (r *rig) client(o ...rpc.DialOption) *rpc.ClientConn {
	r.t.Helper()
	return dialClient(r.t, r.front.Addr().String(), o...)
}

func dialOptions() []rpc.DialOption {
	return []rpc.DialOption{rpc.WithTransportCredentials(insecure.NewCredentials()), rpc.WithDisableServiceConfig()}
}

func dialClient(t testing.TB, addr string, o ...rpc.DialOption) *rpc.ClientConn {
	t.Helper()
	o = append(dialOptions(), o...)
	c, err := rpc.NewClient("passthrough:///"+addr, o...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// server is a grpc-go server of the interop services that counts its calls.
type server struct {
	testgrpc.TestServiceServer
	*rpc.Server
	addr string
	name string

	mu    sync.Mutex
	calls int
}

// UnaryCall implements the interop service.
func (s *server) UnaryCall(ctx context.Context, in *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
	s.mu.Lock()
	s.calls++
	s.mu.Unlock()
	out, err := s.TestServiceServer.UnaryCall(ctx, in)
	if out != nil {
		out.Hostname = s.name
	}
	return out, err
}

func (s *server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

func listen(t testing.TB, addr string) net.Listener {
	t.Helper()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(context.Background(), "tcp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func newServer(t testing.TB, name string, o ...rpc.ServerOption) *server {
	t.Helper()
	return newServerAt(t, name, "127.0.0.1:0", o...)
}

func newServerAt(t testing.TB, name, addr string, o ...rpc.ServerOption) *server {
	t.Helper()
	l := listen(t, addr)
	s := &server{TestServiceServer: interop.NewTestServer(), Server: rpc.NewServer(o...), addr: l.Addr().String(), name: name}
	testgrpc.RegisterTestServiceServer(s.Server, s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Serve(l)
	}()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	return s
}

// call makes one unary call and returns who served it.
func call(t testing.TB, c testgrpc.TestServiceClient) string {
	t.Helper()
	name, err := tryCall(c)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func tryCall(c testgrpc.TestServiceClient) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := c.UnaryCall(ctx, &testgrpc.SimpleRequest{ResponseSize: 10, Payload: &testgrpc.Payload{Body: make([]byte, 20)}})
	return out.GetHostname(), err
}
