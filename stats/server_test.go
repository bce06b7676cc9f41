// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"sluice/config"
)

// fakeSource is an instance with fixed figures.
type fakeSource struct {
	snapshot func() *Snapshot
	flows    []Flow
	stopping atomic.Bool
}

func (f *fakeSource) Snapshot() *Snapshot { return f.snapshot() }
func (f *fakeSource) Flows(limit int, by FlowOrder) []Flow {
	if by == OldestFirst { // enough to see that it came through
		return f.flows[max(0, len(f.flows)-limit):]
	}
	return f.flows[:min(limit, len(f.flows))]
}

func (f *fakeSource) Stopping() bool { return f.stopping.Load() }

func newFakeSource(flows int) *fakeSource {
	f := &fakeSource{snapshot: sampleSnapshot}
	for i := range flows {
		f.flows = append(f.flows, Flow{ID: uint64(flows - i), Listener: "front", Pool: "readers", Backend: "10.0.0.1:80",
			Client: "192.0.2.1:5", Datapath: "splice", AgeSeconds: 61.25, IdleSeconds: 0.5, BytesReceived: 5, BytesSent: 9})
	}
	return f
}

func serve(t *testing.T, addr config.Address, src Source) (*Server, config.Address) {
	t.Helper()
	s, err := NewServer(addr, src, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), <-served); err != nil {
			t.Error(err)
		}
	})
	if tcp, ok := s.Address().(*net.TCPAddr); ok {
		addr.Port = tcp.AddrPort().Port()
	}
	return s, addr
}

func loopback() config.Address { return config.Address{Addr: netip.MustParseAddr("127.0.0.1")} }

func request(t *testing.T, addr config.Address, method, path string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, "http://"+addr.String()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r, string(b)
}

func TestEndpoint(t *testing.T) {
	_, addr := serve(t, loopback(), newFakeSource(1500))
	tests := []struct {
		method, path string
		status       int
		kind, part   string
	}{
		{"GET", "/healthz", 200, "text/plain; charset=utf-8", "ok\n"},
		{"HEAD", "/healthz", 200, "text/plain; charset=utf-8", ""},
		{"GET", "/stats", 200, "application/json", `"bytes_received":1`},
		{"HEAD", "/stats", 200, "application/json", ""},
		{"GET", "/flows", 200, "application/json", `"client":"192.0.2.1:5"`},
		{"GET", "/metrics", 200, "text/plain", "sluice_build_info"},
		{"GET", "/", 404, "", ""},
		{"GET", "/stats/", 404, "", ""},
		{"GET", "/debug/pprof/", 404, "", ""},
		{"GET", "//stats", 404, "", ""},
		{"POST", "/stats", 405, "", ""},
		{"DELETE", "/nowhere", 405, "", ""},
		{"OPTIONS", "/flows", 405, "", ""},
		{"GET", "/flows?limit=x", 400, "", "limit"},
		{"GET", "/flows?limit=-1", 400, "", "limit"},
		{"GET", "/flows?limit=0", 400, "", "limit"},
		{"GET", "/flows?limit=", 400, "", "limit"},
		{"GET", "/flows?limit=10001", 400, "", "10000"},
		{"GET", "/flows?limit=99999999999999999999", 400, "", "limit"},
		{"GET", "/flows?sort=size", 400, "", "sort must be new, bytes, idle or age"},
		{"GET", "/flows?sort=", 400, "", "sort"},
		{"GET", "/flows?limit=%zz", 400, "", "query"},
		{"GET", "/flows?limit=5;sort=bytes", 400, "", "query"},
		{"GET", "/flows?sort=bytes&limit=10000", 200, "application/json", `"reason":`},
		{"GET", "/flows?sort=idle", 200, "application/json", ""},
		{"GET", "/flows?sort=new", 200, "application/json", ""},
		{"GET", "/flows?sort=age&limit=1", 200, "application/json", `[{"id":1,`},
	}
	for _, tt := range tests {
		t.Run(tt.method+tt.path, func(t *testing.T) {
			r, body := request(t, addr, tt.method, tt.path)
			if r.StatusCode != tt.status || !strings.HasPrefix(r.Header.Get("Content-Type"), tt.kind) || !strings.Contains(body, tt.part) {
				t.Errorf("%s, %s: %.200s", r.Status, r.Header.Get("Content-Type"), body)
			}
			if tt.method == "HEAD" && body != "" {
				t.Errorf("a body: %q", body)
			}
			if got := r.Header.Get("Allow"); (got == "GET, HEAD") != (tt.status == 405) {
				t.Errorf("Allow is %q", got)
			}
		})
	}
	for path, want := range map[string]int{"/flows": 1000, "/flows?limit=3": 3, "/flows?limit=2000": 1500} {
		_, body := request(t, addr, "GET", path)
		var flows []Flow
		if err := json.Unmarshal([]byte(body), &flows); err != nil || len(flows) != want || flows[0].ID != 1500 {
			t.Errorf("%s: %d flows, want %d, the newest first: %v", path, len(flows), want, err)
		}
	}
}

// TestOptionsOfTheServer: the one method whose request names no path.
func TestOptionsOfTheServer(t *testing.T) {
	_, addr := serve(t, loopback(), newFakeSource(0))
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusMethodNotAllowed || r.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("%s, Allow %q, want 405 and GET, HEAD", r.Status, r.Header.Get("Allow"))
	}
}

func TestStopping(t *testing.T) {
	src := newFakeSource(0)
	_, addr := serve(t, loopback(), src)
	src.stopping.Store(true)
	if r, body := request(t, addr, "GET", "/healthz"); r.StatusCode != 503 || body != "stopping\n" {
		t.Errorf("%s: %q", r.Status, body)
	}
	if r, body := request(t, addr, "GET", "/flows"); r.StatusCode != 200 || body != "[]\n" {
		t.Errorf("%s: %q", r.Status, body)
	}
}

func TestStatsJSON(t *testing.T) {
	src := &fakeSource{snapshot: func() *Snapshot { return &Snapshot{} }}
	_, addr := serve(t, loopback(), src)
	const empty = `{"version":"","kernel":"","pid":0,"uptime_seconds":0,"config":{"file":"","ok":false,"error":"",` +
		`"loaded_at":"0001-01-01T00:00:00Z"},"access_log":{"lines":0,"dropped":0},"listeners":[],"pools":[]}` + "\n"
	if _, body := request(t, addr, "GET", "/stats"); body != empty {
		t.Errorf("got %s", body)
	}
	src.snapshot = sampleSnapshot
	_, body := request(t, addr, "GET", "/stats")
	const want = `"listeners":[{"name":"front","listen":[":19585"],"pool":"readers","protocol":"tcp","datapath":"splice",` +
		`"reason":"","fallbacks":{"map_full":1},"active":2,"total":12,"bytes_received":1,"bytes_sent":2}],"pools":[{"name":"readers","balance":"round_robin",` +
		`"backends":[{"address":"10.0.0.1:80","state":"up","weight":5,"backup":false,"active":2,"total":9,"failed":1,` +
		`"bytes_received":3,"bytes_sent":4,"connect_seconds":0.25},`
	if !strings.Contains(body, want) {
		t.Errorf("got  %s\nwant %s", body, want)
	}
}

func TestHeaderLimit(t *testing.T) {
	_, addr := serve(t, loopback(), newFakeSource(0))
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET /healthz HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", strings.Repeat("y", 2*maxHeaderBytes))
	answer, _ := bufio.NewReader(c).ReadString('\n')
	if !strings.Contains(answer, "431") {
		t.Errorf("answer %q, want 431", answer)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := newBounded(l, 2)
	accepted := make(chan net.Conn, 10)
	ended := make(chan error, 1)
	go func() {
		for {
			c, err := b.Accept()
			if err != nil {
				ended <- err
				return
			}
			accepted <- c
		}
	}()
	for range 3 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	first := <-accepted
	defer (<-accepted).Close()
	select {
	case <-accepted:
		t.Fatal("a third connection is accepted")
	case <-time.After(50 * time.Millisecond):
	}
	first.Close()
	first.Close() // gives back one place only
	defer (<-accepted).Close()
	if len(b.places) != 2 {
		t.Errorf("%d places taken, want 2", len(b.places))
	}
	b.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

func TestUnixEndpoint(t *testing.T) {
	addr := config.Address{Path: filepath.Join(t.TempDir(), "s")}
	// A stale socket: bound once, its owner gone without unlinking.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: addr.Path})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	s, err := NewServer(addr, newFakeSource(0), zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(addr.Path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v, want 0660", info.Mode(), err)
	}
	if _, err := NewServer(addr, newFakeSource(0), zerolog.Nop()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second server on it: %v", err)
	}
	go s.Serve()
	if body, err := Fetch(addr, "/healthz"); err != nil || string(body) != "ok\n" {
		t.Errorf("%q, %v", body, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(addr.Path); !os.IsNotExist(err) {
		t.Errorf("not unlinked: %v", err)
	}
	if err := os.WriteFile(addr.Path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewServer(addr, newFakeSource(0), zerolog.Nop()); err == nil {
		t.Error("a plain file is replaced")
	}
}

func TestUnixSocketOfASuccessorStays(t *testing.T) {
	addr := config.Address{Path: filepath.Join(t.TempDir(), "s")}
	s, err := NewServer(addr, newFakeSource(0), zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(addr.Path); err != nil {
		t.Fatal(err)
	}
	next, err := NewServer(addr, newFakeSource(0), zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(addr.Path); err != nil {
		t.Errorf("the successor's socket: %v", err)
	}
	if err := next.Close(); err != nil {
		t.Error(err)
	}
}

func TestBindErrorNamesTheAddress(t *testing.T) {
	s, addr := serve(t, loopback(), newFakeSource(0))
	if s.Address() == nil {
		t.Fatal("no address")
	}
	if _, err := NewServer(addr, newFakeSource(0), zerolog.Nop()); err == nil || !strings.Contains(err.Error(), addr.String()) {
		t.Errorf("error %v, want one that names %v", err, addr)
	}
}

func TestFetch(t *testing.T) {
	_, addr := serve(t, config.Address{Any: true, Addr: netip.IPv6Unspecified()}, newFakeSource(2))
	body, err := Fetch(addr, "/flows?limit=1")
	var flows []Flow
	if err != nil || json.Unmarshal(body, &flows) != nil || len(flows) != 1 {
		t.Errorf("%q, %v", body, err)
	}
	if _, err := Fetch(addr, "/flows?limit=x"); err == nil || !strings.Contains(err.Error(), "400") {
		t.Errorf("error %v, want one with the status", err)
	}
	for _, nobody := range []config.Address{
		{Addr: netip.MustParseAddr("127.0.0.1"), Port: 1},
		{Path: filepath.Join(t.TempDir(), "none")},
	} {
		if _, err := Fetch(nobody, "/stats"); err == nil || !strings.Contains(err.Error(), nobody.String()) {
			t.Errorf("error %v, want one that names %v", err, nobody)
		}
	}
}

func TestSnapshotComesBack(t *testing.T) {
	_, addr := serve(t, loopback(), newFakeSource(0))
	body, err := Fetch(addr, "/stats")
	if err != nil {
		t.Fatal(err)
	}
	var got Snapshot
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatal(err)
	}
	want := sampleSnapshot()
	want.GoVersion, want.Started, want.ReloadsOK, want.ReloadsRefused = "", time.Time{}, 0, 0
	want.Dispatch, want.Splice, want.Forward = nil, nil, nil
	want.Listeners[0].Sessions = nil
	for i := range want.Pools[0].Backends {
		want.Pools[0].Backends[i].ConnectBuckets = nil
	}
	if diff := cmp.Diff(want, &got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
