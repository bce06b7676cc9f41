// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	rpc "google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"sluice/stats"
)

// rpcServer is a server of grpc.health.v1 that counts the calls it has had.
type rpcServer struct {
	*rpc.Server
	addr  string
	calls atomic.Int64
}

func newRPCServer(t *testing.T) *rpcServer {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &rpcServer{addr: l.Addr().String()}
	s.Server = rpc.NewServer(rpc.UnaryInterceptor(func(ctx context.Context, req any, _ *rpc.UnaryServerInfo, h rpc.UnaryHandler) (any, error) {
		s.calls.Add(1)
		return h(ctx, req)
	}))
	healthpb.RegisterHealthServer(s.Server, health.NewServer())
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return s
}

func rpcClient(t *testing.T, addr string) healthpb.HealthClient {
	t.Helper()
	c, err := rpc.NewClient("passthrough:///"+addr, rpc.WithTransportCredentials(insecure.NewCredentials()), rpc.WithDisableServiceConfig())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return healthpb.NewHealthClient(c)
}

func check(c healthpb.HealthClient) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err := c.Check(ctx, &healthpb.HealthCheckRequest{})
	return err
}

func grpcListener(name, listen, pool, more string) string {
	return fmt.Sprintf("  - {name: %s, listen: %q, protocol: grpc, pool: %s%s}\n", name, listen, pool, more)
}

// A listener of protocol grpc, from the file to the log, the statistics and
// through edits; calls go on through each.
func TestCalls(t *testing.T) {
	a, b, d := newRPCServer(t), newRPCServer(t), newRPCServer(t)
	front := freeAddr(t)
	pools := "pools:\n" + poolYAML("p", "", a.addr, b.addr) + poolYAML("q", "", d.addr) + "listeners:\n"
	r := newRig(t, pools+grpcListener("g", front, "p", ""))
	c := rpcClient(t, front)
	for range 20 {
		if err := check(c); err != nil {
			t.Fatal(err)
		}
	}
	if a.calls.Load() != 10 || b.calls.Load() != 10 {
		t.Errorf("%d and %d calls", a.calls.Load(), b.calls.Load())
	}
	var line map[string]any
	eventually(t, "20 lines", func() bool { return len(r.lines()) == 20 })
	if err := json.Unmarshal([]byte(r.lines()[0]), &line); err != nil {
		t.Fatal(err)
	}
	for k, want := range map[string]any{
		"protocol": "GRPC", "status": 200.0, "datapath": "grpc", "grpc_method": "/grpc.health.v1.Health/Check", "grpc_status": 0.0,
		"end_reason": "backend_closed", "listener": "g", "pool": "p", "upstream_addr": a.addr,
	} {
		if line[k] != want {
			t.Errorf("%s is %v, want %v", k, line[k], want)
		}
	}
	snap := r.s.Snapshot()
	l := snap.Listeners[0]
	if l.Protocol != "grpc" || l.Datapath != "grpc" || l.Reason != "" || l.Active != 0 || l.Total != 20 || l.Connections == nil || *l.Connections != 1 {
		t.Errorf("%+v", l)
	}
	if be := snap.Pools[0].Backends[0]; be.Total != 10 || be.BytesSent == 0 || be.BytesReceived == 0 || be.Active != 0 {
		t.Errorf("%+v", be)
	}
	if !strings.Contains(r.log.String(), `"datapath":"grpc"`) {
		t.Errorf("the own log: %s", r.log)
	}

	route := `, routes: [{methods: ["/grpc.health.v1.Health/"], pool: q}]`
	r.mustReload(pools + grpcListener("g", front, "p", route))
	for range 10 {
		if err := check(c); err != nil {
			t.Fatal(err)
		}
	}
	if n := d.calls.Load(); n != 10 {
		t.Errorf("%d calls went by the new route", n)
	}
	// The listener becomes one for TCP: its connections are told to go, and what
	// comes is a plain session.
	r.mustReload(pools + listenerYAML("g", front, "q"))
	eventually(t, "a plain session", func() bool {
		if err := check(c); err != nil {
			t.Error(err)
		}
		flows := r.s.Flows(10, stats.NewestFirst)
		return len(flows) > 0 && flows[0].Datapath == "relay"
	})
	r.mustReload(pools + grpcListener("g", front, "p", ""))
	if err := check(rpcClient(t, front)); err != nil {
		t.Error(err)
	}
}

// SIGTERM: clients are told to go, and the service ends with the last call.
func TestCallsAtTheStop(t *testing.T) {
	a := newRPCServer(t)
	front := freeAddr(t)
	r := newRig(t, "pools:\n"+poolYAML("p", "", a.addr)+"listeners:\n"+grpcListener("g", front, "p", ""))
	c := rpcClient(t, front)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	w, err := c.Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Recv(); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	r.signals.Send(syscall.SIGTERM)
	time.Sleep(1500 * time.Millisecond)
	select {
	case <-r.ended:
		t.Fatal("it has ended before its call")
	default:
	}
	cancel()
	r.wait()
	if d := time.Since(begun); d > 4*time.Second {
		t.Errorf("it took %s, with drain_timeout 5s", d)
	}
	if line := r.lines()[0]; !strings.Contains(line, `"end_reason":"cancelled"`) {
		t.Error(line)
	}
}
