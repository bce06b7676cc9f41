// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/config"
)

// t0 is the middle of a second, so that tests notice where whole seconds count.
var t0 = time.Unix(1_700_000_000, 500_000_000)

func after(d time.Duration) time.Time { return t0.Add(d) }

// addr gives backend i of a test pool an address.
func addr(i int) Addr {
	ip := netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
	return Addr{AddrPort: netip.AddrPortFrom(ip, 1000)}
}

// spec is backend i with nginx's defaults.
func spec(i, weight int) Spec {
	return Spec{Addr: addr(i), Weight: weight, MaxFails: 1, FailTimeout: 10 * time.Second, State: config.Up}
}

// letters are pools like "5,1,1": the backends are called a, b, c.
func letters(weights ...int) (specs []Spec) {
	for i, w := range weights {
		specs = append(specs, spec(i, w))
	}
	return specs
}

func letter(b *Backend) string {
	if b == nil {
		return "-"
	}
	return string(rune('a' + int(b.Addr.AddrPort.Addr().As4()[3])))
}

// recorder keeps the events.
type recorder struct {
	mu     sync.Mutex
	events []string
}

func (r *recorder) add(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, strings.TrimSpace(e.Kind.String()+" "+e.Backend))
}

func (r *recorder) take() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := strings.Join(r.events, "; ")
	r.events = nil
	return s
}

func newPool(t testing.TB, board Board, o Options, specs []Spec) (*Pool, *recorder) {
	t.Helper()
	r := &recorder{}
	p := New("test", board, r.add)
	p.Apply(o, specs, t0)
	return p, r
}

// serve is a session that succeeds and ends at once.
func serve(p *Pool, now time.Time) *Backend {
	b := p.Pick(&State{}, now)
	if b != nil {
		p.Connected(b, time.Millisecond, now)
		p.Release(b, now)
	}
	return b
}

func serveN(p *Pool, n int, now time.Time) string {
	var s []string
	for range n {
		s = append(s, letter(serve(p, now)))
	}
	return strings.Join(s, " ")
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// fakeBoard is the window as dispatch keeps it, with a side for "BPF".
type fakeBoard struct {
	mu     sync.Mutex
	picks  []uint32
	until  time.Time
	next   int
	open   bool
	opened int
	taken  int // by both sides, over all windows
}

func (f *fakeBoard) Open(picks []uint32, until time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open {
		panic("opened twice")
	}
	f.picks = append([]uint32(nil), picks...)
	f.next, f.open, f.until = 0, true, until
	f.opened++
}

func (f *fakeBoard) Close() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.open {
		panic("closed twice")
	}
	f.open = false
	return f.next
}

func (f *fakeBoard) Take() (int, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.take()
}

func (f *fakeBoard) take() (int, bool) {
	if !f.open || f.next >= len(f.picks) {
		return 0, false
	}
	f.next++
	f.taken++
	return f.next - 1, true
}

// bpf is the dispatch program's pick at a SYN.
func (f *fakeBoard) bpf(now time.Time) (id uint32, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.until.IsZero() && !now.Before(f.until) {
		return 0, false
	}
	i, ok := f.take()
	if !ok {
		return 0, false
	}
	return f.picks[i], true
}

func (f *fakeBoard) isOpen() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.open
}
