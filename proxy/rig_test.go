// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"sluice/accesslog"
	"sluice/config"
	"sluice/internal/needs"
	"sluice/internal/netrig"
	"sluice/loader"
	"sluice/pool"
	"sluice/session"
	"sluice/stats"
	"sluice/vmtest/lacks"
)

// rig is an engine with one front, one pool, and what it recorded.
type rig struct {
	t        testing.TB
	engine   *Engine
	front    *Front
	pool     *pool.Pool
	settings *session.Settings

	mu      sync.Mutex
	records []accesslog.Record
	logged  []bool // whether each gets a line
	when    []time.Time
}

// datapaths runs f once a datapath; clients and backends are on other hosts where
// packets are forwarded. One is left out only for what the loader itself says: this
// kernel is refused, or privileges are missing.
func datapaths(t *testing.T, f func(t *testing.T, path string)) {
	withSockets(t, f)
	t.Run("offload", func(t *testing.T) { onDatapath(t, "offload", f) })
}

// withSockets is datapaths for what only sessions have that keep their sockets.
func withSockets(t *testing.T, f func(t *testing.T, path string)) {
	for _, path := range []string{"relay", "splice"} {
		t.Run(path, func(t *testing.T) { onDatapath(t, path, f) })
	}
}

func onDatapath(t *testing.T, path string, f func(t *testing.T, path string)) {
	switch path {
	case "splice":
		needSplice(t)
	case "offload":
		needs.Offload(t)
		elsewhere(t, netrig.Options{}, false)
	}
	f(t, path)
}

// datapathsAtOnce is datapaths for a test that mostly waits: all run at a time,
// beside the other tests of this kind. They change nothing that is everybody's,
// such as a sysctl.
func datapathsAtOnce(t *testing.T, f func(t *testing.T, path string)) {
	t.Parallel()
	for _, path := range []string{"relay", "splice", "offload"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			onDatapath(t, path, f)
		})
	}
}

// needSplice skips where splice can't be had, after checking that the refusal
// is one that the service takes for a reason to relay.
func needSplice(t testing.TB) {
	t.Helper()
	err := loader.CheckRelease()
	if err == nil {
		var s *loader.Splice
		if s, err = loader.NewSplice(loader.SpliceOptions{MaxFlows: 16}); err == nil {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			return
		}
	}
	switch {
	case errors.Is(err, loader.ErrKernel):
		lacks.Skip(t, "splice", err.Error())
	case errors.Is(err, loader.ErrNotPermitted):
		lacks.Skip(t, "root", err.Error())
	default:
		t.Fatalf("no splice, and not for a known reason: %v", err)
	}
}

func defaults() *config.Listener {
	return &config.Listener{
		Name: "front", Pool: "pool", Datapath: config.Auto, ConnectTimeout: 60 * time.Second,
		IdleTimeout: 10 * time.Minute, ProxySend: config.ProxyOff, HalfClose: true, Backlog: 4096, AccessLog: config.LogOn,
	}
}

func newRig(t testing.TB, path string, backends []string, change func(*config.Listener)) *rig {
	t.Helper()
	return newRigOf(t, path, backends, change, Options{Loops: 2})
}

func newRigOf(t testing.TB, path string, backends []string, change func(*config.Listener), o Options) *rig {
	t.Helper()
	return newRigPausing(t, path, backends, change, o, nil)
}

// newRigPausing has sessions pause on their way into the map.
func newRigPausing(t testing.TB, path string, backends []string, change func(*config.Listener), o Options, pause func()) *rig {
	t.Helper()
	r := &rig{t: t}
	if reflect.ValueOf(o.Log).IsZero() {
		o.Log = zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel)
	}
	if o.Sessions == nil {
		o.Sessions = session.NewRegistry(session.Options{Record: func(s *accesslog.Record, logged bool) {
			r.mu.Lock()
			defer r.mu.Unlock()
			c := *s
			c.Attempts = append([]accesslog.Attempt(nil), s.Attempts...)
			r.records = append(r.records, c)
			r.logged = append(r.logged, logged)
			r.when = append(r.when, time.Now())
		}})
	}
	if path == "splice" {
		if o.Splice == nil {
			s, err := loader.NewSplice(loader.SpliceOptions{MaxFlows: 1024, Pause: pause})
			if err != nil {
				t.Fatal(err)
			}
			o.Splice = s
			t.Cleanup(func() { s.Close() })
		}
		if o.MapBatch == 0 {
			o.MapBatch = 1 << 16 // tests of the map keep their loops busy
		}
	}
	if path == "offload" && o.Offload == nil {
		o.Offload = newOffload(t, 1024)
	}
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	r.engine = e
	t.Cleanup(func() { e.Close() })
	r.pool = pool.New("pool", nil, nil)
	r.pool.Apply(pool.Options{Balance: config.RoundRobin}, specs(backends), time.Now())
	c := defaults()
	if change != nil {
		change(c)
	}
	r.settings = &session.Settings{Config: c, Pool: r.pool, Counters: stats.NewListener(c.Name), SpliceAllowed: path == "splice", OffloadAllowed: path == "offload", TCPInfo: true, Limits: session.NewLimits()}
	if path == "relay" {
		r.settings.Reason = "the test says relay"
	}
	r.front, err = e.Bind(config.Address{Addr: frontAddr(t)}, 4096, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	r.front.Serve(r.settings)
	t.Cleanup(func() {
		r.front.Close(time.Minute)
		<-r.front.Done()
	})
	return r
}

func specs(addrs []string) []pool.Spec {
	var out []pool.Spec
	for _, a := range addrs {
		s := pool.Spec{Weight: 1, MaxFails: 1, FailTimeout: 10 * time.Second, State: config.Up}
		if len(a) > 5 && a[:5] == "unix:" {
			s.Addr.Unix = a[5:]
		} else {
			s.Addr.AddrPort = netip.MustParseAddrPort(a)
		}
		out = append(out, s)
	}
	return out
}

func (r *rig) dial() *net.TCPConn {
	r.t.Helper()
	c, err := r.connect()
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// ended waits for n records.
func (r *rig) ended(n int) []accesslog.Record {
	r.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		r.mu.Lock()
		got := append([]accesslog.Record(nil), r.records...)
		r.mu.Unlock()
		if len(got) >= n {
			return got
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%d records, want %d; what is left:\n%s", len(got), n, r.left())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// empty waits until no session is left.
func (r *rig) empty() {
	r.t.Helper()
	r.emptyWithin(10 * time.Second)
}

func (r *rig) emptyWithin(d time.Duration) {
	r.t.Helper()
	select {
	case <-r.engine.sessions.Idle():
	case <-time.After(d):
		r.t.Errorf("%d sessions left:\n%s", r.engine.sessions.Live(), r.left())
	}
}

// left describes the sessions that there are: what a session that hangs waits for.
func (r *rig) left() string {
	var b strings.Builder
	for _, l := range r.engine.loops {
		l.call(func() {
			l.sessions.each(func(s *pair) {
				fmt.Fprintf(&b, "session %d of %s on loop %d: state %d, reason %q, deadline in %d ms\n", s.ID, s.Client, l.id, s.state, s.reason, (s.deadline-l.now)/1e6)
				for i, e := range s.ends() {
					var ti unix.TCPInfo
					tcpInfo(e.fd, &ti)
					w := ti.Bytes_acked + outq(e.fd)
					fmt.Fprintf(&b, "  end %d: in %d, out %d, held %d, readable %t, full %t, rdhup %t, eof %t, finished %t, broken %t, entered %d, of which %d unacknowledged, %d not sent; TCP state %d, %d timeouts; memory %v\n",
						i, e.in, e.out, len(e.held), e.readable, e.full, e.rdhup, e.eof, e.finished, e.broken, w, outq(e.fd), ti.Notsent_bytes, ti.State, ti.Retransmits, memory(e.fd))
					if m := s.fwd; m != nil {
						fmt.Fprintf(&b, "  registered: %s\n", m.rec)
					}
					if m, ok := s.mover.(*splicer); ok && m.live {
						d := &m.dir[i]
						fmt.Fprintf(&b, "  in the map: redirected %d, passed %d, forwarded %d, %+v\n", d.shared.Redirected(), d.shared.Passed(), d.shared.Forwarded(), *d)
					}
				}
			})
		})
	}
	if r.engine.splice != nil {
		fmt.Fprintf(&b, "%+v\n", r.engine.splice.Counts())
	}
	if h := ground(r.t); h != nil {
		fmt.Fprintf(&b, "on the hosts:\n%s", h.sockets())
	}
	return b.String()
}

// memory is SO_MEMINFO: what is charged for receiving, the limit, for sending, the
// limit, allocated in advance, in the send queue, options, backlog, drops.
func memory(fd int32) (m [9]uint32) {
	n := uint32(unsafe.Sizeof(m))
	unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO, uintptr(unsafe.Pointer(&m)), uintptr(unsafe.Pointer(&n)), 0)
	return m
}

// serve runs a backend that gives each connection to h.
func serve(t testing.TB, h func(net.Conn)) string {
	t.Helper()
	l, err := backendListener(t)
	if err != nil {
		t.Fatal(err)
	}
	accepting(t, l, h)
	return l.Addr().String()
}

// serveOn is serve at an address of this host.
func serveOn(t testing.TB, network, addr string, h func(net.Conn)) string {
	t.Helper()
	var config net.ListenConfig
	config.SetMultipathTCP(false) // a listener of MPTCP resets some whose SYN-ACK was lost
	l, err := config.Listen(t.Context(), network, addr)
	if err != nil {
		t.Fatal(err)
	}
	accepting(t, l, h)
	if network == "unix" {
		return "unix:" + addr
	}
	return l.Addr().String()
}

func accepting(t testing.TB, l net.Listener, h func(net.Conn)) {
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				h(c)
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
}

func echo(c net.Conn) { io.Copy(struct{ io.Writer }{c}, c) }

// refusing is an address that nobody listens on.
func refusing(t testing.TB) string {
	l, err := backendListener(t)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// warm exchanges small messages until the session may have entered the map.
func warm(t testing.TB, c net.Conn) {
	t.Helper()
	b := make([]byte, 8)
	for range 40 {
		if _, err := c.Write([]byte("12345678")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatal(err)
		}
	}
}
