// SPDX-License-Identifier: Apache-2.0

package grpc_test

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/net/http2"
	rpc "google.golang.org/grpc"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"

	"sluice/config"
	"sluice/session"
)

// A PROXY header names the client of all calls of its connection.
func TestProxyHeader(t *testing.T) {
	a := serveRaw(t, nil, echo("a"))
	r := newRig(t, backends{"pool": {a.addr}}, func(c *config.Listener) { c.ProxyAccept = true })
	c, err := net.Dial("tcp", r.front.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "PROXY TCP4 192.0.2.7 192.0.2.8 4711 80\r\n%s", http2.ClientPreface)
	h := newRaw(t, c)
	h.WriteSettings()
	for id := uint32(1); id < 6; id += 2 {
		h.request(id, true)
		if text, _ := h.outcome(id); text != "a" {
			t.Errorf("%q", text)
		}
	}
	for _, rec := range r.ended(3) {
		if want := netip.MustParseAddrPort("192.0.2.7:4711"); rec.Client.AddrPort != want || rec.ProxyAddr != want {
			t.Errorf("%+v", rec)
		}
	}
}

// Unix sockets on both sides.
func TestUnixSockets(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "backend"))
	if err != nil {
		t.Fatal(err)
	}
	s := rpc.NewServer()
	testgrpc.RegisterTestServiceServer(s, &server{TestServiceServer: newServer(t, "x").TestServiceServer, name: "unix"})
	go s.Serve(l)
	t.Cleanup(s.Stop)
	r := newRig(t, backends{"pool": {"unix:" + l.Addr().String()}}, nil)
	f, err := r.engine.Bind(config.Address{Path: filepath.Join(dir, "front")}, 100, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	set := *r.settings
	set.Pool, set.Calls = r.pools["pool"], &session.Calls{}
	r.sessions.Update(func() { f.Serve(&set) })
	t.Cleanup(func() { f.Close(time.Second); <-f.Done() })
	c, err := rpc.NewClient("unix:"+filepath.Join(dir, "front"), dialOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if got := call(t, testgrpc.NewTestServiceClient(c)); got != "unix" {
		t.Errorf("%s", got)
	}
	rec := r.ended(1)[0]
	if !rec.Client.Unix || rec.Server.Path != filepath.Join(dir, "front") || rec.Attempts[0].Addr != "unix:"+l.Addr().String() {
		t.Errorf("%+v", rec)
	}
}

// An idle connection has no buffer: 16 KiB in all, the runtime's share included.
func TestIdleConnectionsAreSmall(t *testing.T) {
	a := serveRaw(t, nil, echo("a"))
	r := newRig(t, backends{"pool": {a.addr}}, nil)
	const n = 1000
	conns := make([]net.Conn, n)
	memory := func() int64 {
		runtime.GC()
		runtime.GC() // what pools of tests before this one hold goes with the second
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc + m.StackInuse)
	}
	var before int64
	for i := range conns {
		c := rawClient(t, r.front.Addr().String())
		c.request(1, true, "authorization", "token", "x-request-id", fmt.Sprint(i))
		if text, _ := c.outcome(1); text != "a" {
			t.Fatal(text)
		}
		conns[i] = c.Conn
		*c = raw{} // the client's own buffers are no matter of ours
		if i == n/10 {
			before = memory()
		}
	}
	each := (memory() - before) / (n - n/10)
	if each > 16<<10 && !raceDetector { // which has memory of its own for each word
		t.Errorf("%d bytes each", each)
	}
	t.Logf("%d bytes each, the client's end included", each)
}
