// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/config"
)

func TestWindowOpensAndCloses(t *testing.T) {
	board := &fakeBoard{}
	p, _ := newPool(t, board, Options{}, letters(1, 1, 1))
	if !board.isOpen() || len(board.picks) != windowPicks || !board.until.IsZero() {
		t.Fatalf("no window, or a bounded one, after the start")
	}
	fail(t, p, "a", t0)
	if board.isOpen() {
		t.Fatal("open with who has just failed")
	}
	p.Close()
	p.Tick(after(time.Hour))
	serve(p, after(time.Hour))
	if board.isOpen() {
		t.Error("reopened after Close")
	}
	p, _ = newPool(t, board, Options{}, letters(1, 1, 1))
	p.Close()
	if board.isOpen() {
		t.Error("open after Close")
	}
}

// A window without the ejected one, up to the moment at which it may be probed;
// then another while the probe is under way; then all of them.
func TestWindowBesideAnEjectedBackend(t *testing.T) {
	board := &fakeBoard{}
	p, _ := newPool(t, board, Options{}, letters(1, 1, 1))
	viaBPF := func(n int, now time.Time) (s string) {
		for range n {
			id, ok := board.bpf(now)
			if !ok {
				return s + "!"
			}
			b := p.Redeem(&State{}, id, now)
			p.Connected(b, 0, now)
			p.Release(b, now)
			s += letter(b)
		}
		return s
	}
	want(t, "before", viaBPF(4, t0), "abca")
	fail(t, p, "b", t0)
	p.Tick(after(windowQuiet))
	want(t, "window without b", viaBPF(4, after(time.Second)), "ccac")
	// b failed at half past the second: its eleventh second begins after 10.5 s.
	due := after(10500 * time.Millisecond)
	if !board.until.Equal(due) {
		t.Fatalf("bounded by %v, want %v", board.until.Sub(t0), due.Sub(t0))
	}
	want(t, "just before b may be probed", viaBPF(1, due.Add(-time.Nanosecond)), "a")
	want(t, "from then on", viaBPF(1, due), "!")
	var probe *Backend
	for range 10 { // it climbs back by picks
		b := p.Pick(&State{}, due)
		if letter(b) == "b" {
			probe = b
			break
		}
		if board.isOpen() {
			t.Fatal("open while b is to be probed")
		}
		p.Release(b, due)
	}
	if probe == nil {
		t.Fatal("b isn't probed")
	}
	p.Tick(due.Add(windowQuiet))
	if !board.until.Equal(due.Add(11 * time.Second)) {
		t.Fatalf("bounded by %v after the probe began", board.until.Sub(t0))
	}
	if s := viaBPF(4, due.Add(windowQuiet)); s != "acac" && s != "caca" {
		t.Errorf("while b is probed: %s", s)
	}
	p.Connected(probe, 0, due.Add(time.Second))
	if board.isOpen() {
		t.Error("a window without b when it is back")
	}
	p.Tick(due.Add(time.Second))
	if !board.isOpen() || !board.until.IsZero() {
		t.Error("no window of all when b is back")
	}
	if got := viaBPF(9, due.Add(time.Second)); strings.Count(got, "b") < 2 || strings.Contains(got, "!") {
		t.Errorf("b is back: %s", got)
	}
}

// failTurn has the backend of that letter fail when its turn comes.
func failTurn(t *testing.T, p *Pool, l string, now time.Time) {
	t.Helper()
	for range 1000 {
		b := p.Pick(&State{}, now)
		if letter(b) == l {
			p.Failed(b, "refused", now)
			return
		}
		p.Release(b, now)
	}
	t.Fatalf("%s has no turn", l)
}

// Two are ejected: the first one's probe bounds the window. An ejection that is
// as good as for ever bounds none.
func TestWindowBounds(t *testing.T) {
	specs := letters(1, 1, 1, 1)
	specs[1].FailTimeout = 3 * time.Second
	specs[2].FailTimeout = math.MaxInt64
	board := &fakeBoard{}
	p, _ := newPool(t, board, Options{}, specs)
	failTurn(t, p, "c", t0)
	p.Tick(after(windowQuiet))
	if !board.isOpen() || !board.until.IsZero() {
		t.Errorf("open %v, until %v", board.isOpen(), board.until)
	}
	failTurn(t, p, "a", after(time.Second))
	failTurn(t, p, "b", after(time.Second))
	p.Tick(after(time.Second + windowQuiet))
	if want := after(4500 * time.Millisecond); !board.until.Equal(want) {
		t.Errorf("until %v, want %v", board.until.Sub(t0), want.Sub(t0))
	}
	failTurn(t, p, "d", after(time.Second))
	p.Tick(after(2 * time.Second))
	if board.isOpen() {
		t.Error("a window of nobody")
	}
}

func TestWindowIsReopenedLazily(t *testing.T) {
	specs := letters(1, 1, 1)
	for i := range specs {
		specs[i].MaxFails = 1000
	}
	board := &fakeBoard{}
	p, _ := newPool(t, board, Options{}, specs)
	for i := range 100 { // a failure each millisecond
		s, at := &State{}, after(time.Duration(i)*time.Millisecond)
		p.Failed(p.Pick(s, at), "refused", at)
		p.Release(p.Pick(s, at), at)
	}
	if board.opened > 1 {
		t.Errorf("%d windows in 100 ms of failures", board.opened)
	}
	serve(p, after(200*time.Millisecond))
	if board.opened != 2 {
		t.Errorf("a pick doesn't reopen the window when it is quiet")
	}
}

func TestNoWindow(t *testing.T) {
	full, down := letters(1, 1), letters(1)
	full[1].MaxConns = 100
	down[0].State = config.Down
	for _, specs := range [][]Spec{full, down, nil} {
		board := &fakeBoard{}
		p, _ := newPool(t, board, Options{}, specs)
		p.Tick(after(time.Second))
		if board.opened != 0 {
			t.Errorf("a window for %v", specs)
		}
	}
}

func TestWindowBesideAFailingBackend(t *testing.T) {
	board := &fakeBoard{}
	p, _ := newPool(t, board, Options{}, letters(1, 1, 1))
	p.SetFailing(p.Backends()[0], true, t0)
	if board.isOpen() {
		t.Error("the window with it is still open")
	}
	want(t, "without it", serveN(p, 3, after(time.Second)), "b c b")
	if !board.isOpen() || !board.until.IsZero() {
		t.Error("no window without it, or a bounded one")
	}
	p.SetFailing(p.Backends()[0], false, after(time.Second))
	want(t, "with it", serveN(p, 3, after(time.Second)), "c a b")
	// One that is failing as well as ejected bounds nothing.
	failTurn(t, p, "a", after(time.Second))
	p.SetFailing(p.Backends()[0], true, after(time.Second))
	p.Tick(after(2 * time.Second))
	if !board.isOpen() || !board.until.IsZero() {
		t.Error("failing and ejected: no window, or a bounded one")
	}
	p.SetFailing(p.Backends()[0], false, after(2*time.Second))
	p.Tick(after(3 * time.Second))
	if !board.until.Equal(after(11500 * time.Millisecond)) {
		t.Errorf("ejected only: until %v", board.until.Sub(t0))
	}
}

func TestRedeem(t *testing.T) {
	board := &fakeBoard{}
	p, _ := newPool(t, board, Options{}, letters(1, 1, 1))
	id, _ := board.bpf(t0)
	s := &State{}
	a := p.Redeem(s, id, t0)
	want(t, "the proposal", letter(a), "a")
	want(t, "the next one", serveN(p, 1, t0), "b")
	want(t, "tried already", letter(p.Redeem(s, id, t0)), "c")

	id, _ = board.bpf(t0)
	for id != a.ID {
		id, _ = board.bpf(t0)
		if !board.isOpen() {
			p.Tick(after(time.Second))
		}
	}
	p.SetFailing(a, true, t0)
	if got := letter(p.Redeem(&State{}, id, t0)); got == "a" || got == "-" {
		t.Errorf("failing by now: %s", got)
	}
	p.SetFailing(a, false, t0)
	want(t, "a pick from before", letter(p.Redeem(&State{}, a.ID, t0)), "a")
	p.Apply(Options{}, letters(1, 1, 1)[1:], t0)
	if got := letter(p.Redeem(&State{}, a.ID, t0)); got == "a" || got == "-" {
		t.Errorf("removed by now: %s", got)
	}
	if got := p.Redeem(&State{}, 0, t0); got == nil {
		t.Error("an unknown number must fall to Pick")
	}
}

// Tickets taken on both sides, with windows running out and updates between:
// nobody is picked once too often or too seldom.
func TestWindowHandOverIsExact(t *testing.T) {
	board := &fakeBoard{}
	specs := letters(5, 1, 1)
	p, _ := newPool(t, board, Options{}, specs)
	const sides, each = 64, 7000 * 2 / 64
	var mu sync.Mutex
	count := map[string]int{}
	var wg sync.WaitGroup
	one := func(bpf bool) {
		s := &State{}
		var b *Backend
		if bpf {
			if id, ok := board.bpf(t0); ok {
				b = p.Redeem(s, id, t0)
			}
		}
		if b == nil {
			b = p.Pick(s, t0)
		}
		p.Connected(b, 0, t0)
		p.Release(b, t0)
		mu.Lock()
		count[letter(b)]++
		mu.Unlock()
	}
	for g := range sides {
		wg.Go(func() {
			for range each {
				one(g%2 == 0)
			}
		})
	}
	wg.Go(func() {
		for i := range 300 {
			p.Apply(Options{TryEjected: i%2 == 0}, specs, t0)
			p.Tick(t0)
		}
	})
	wg.Wait()
	for range 14000 - sides*each {
		one(false)
	}
	if count["a"] != 10000 || count["b"] != 2000 || count["c"] != 2000 {
		t.Errorf("14000 picks over 5,1,1: %v", count)
	}
	if board.taken != 14000 {
		t.Errorf("%d tickets for 14000 picks", board.taken)
	}
	for _, b := range p.Backends() {
		if st := b.Snapshot(t0); st.Active != 0 {
			t.Errorf("%s has %d active", st.Address, st.Active)
		}
	}
}

func TestSixtyFourGoroutinesNoUpdates(t *testing.T) {
	for _, board := range []Board{nil, &fakeBoard{}} {
		p, _ := newPool(t, board, Options{}, letters(5, 1, 1))
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				for range 7000 / 64 {
					serve(p, t0)
				}
			})
		}
		wg.Wait()
		for range 7000 % 64 {
			serve(p, t0)
		}
		var got [3]uint64
		for i, b := range p.Backends() {
			got[i] = b.Snapshot(t0).Total
		}
		if got != [3]uint64{5000, 1000, 1000} {
			t.Errorf("7000 picks over 5,1,1: %v", got)
		}
	}
}

// Everything at once, for the race detector; what can be said is that nothing
// stays active and no backend is over its limit.
func TestConcurrentUse(t *testing.T) {
	for _, balance := range []config.Balance{config.RoundRobin, config.LeastConn, config.RandomTwo, config.Hash} {
		board := &fakeBoard{}
		specs := letters(3, 2, 1, 1)
		specs[3].Backup = true
		limited := letters(3, 2, 1, 1)
		limited[0].MaxConns = 2
		p, _ := newPool(t, board, Options{Balance: balance, TryEjected: true}, specs)
		var wg sync.WaitGroup
		for g := range 16 {
			wg.Go(func() {
				for i := range 500 {
					now := after(time.Duration(i) * 20 * time.Millisecond)
					s := &State{Key: addr(g).AddrPort.Addr()}
					b := p.Pick(s, now)
					for b != nil && (i+g)%7 == 0 {
						p.Failed(b, "refused", now)
						b = p.Pick(s, now)
					}
					if b == nil {
						continue
					}
					p.Connected(b, time.Duration(i)*time.Microsecond, now)
					b.AddBytes(1, 2)
					if st := b.Snapshot(now); st.State == "" {
						t.Error("no state")
					}
					p.Release(b, now)
				}
			})
		}
		wg.Go(func() {
			for i := range 60 {
				now := after(time.Duration(i) * 100 * time.Millisecond)
				o := Options{Balance: balance, TryEjected: i%2 == 0}
				switch i % 3 {
				case 0:
					p.Apply(o, specs[1:], now)
				case 1:
					p.Apply(o, limited, now)
				default:
					p.Apply(o, specs, now)
				}
				p.Tick(now)
				p.SetFailing(p.Backends()[0], i%4 == 0, now)
			}
		})
		wg.Wait()
		for _, b := range p.Backends() {
			if st := b.Snapshot(t0); st.Active != 0 {
				t.Errorf("%s: %s has %d active", balance, st.Address, st.Active)
			}
		}
		p.Apply(Options{Balance: balance}, specs, after(time.Minute))
		if n := len(p.Backends()); n != 4 {
			t.Errorf("%s: %d backends, want 4", balance, n)
		}
	}
}

func TestLimitIsExactUnderConcurrency(t *testing.T) {
	specs := letters(1, 1)
	specs[0].MaxConns, specs[1].MaxConns = 3, 5
	p, _ := newPool(t, nil, Options{}, specs)
	var wg sync.WaitGroup
	var mu sync.Mutex
	got := 0
	for range 64 {
		wg.Go(func() {
			if p.Pick(&State{}, t0) != nil {
				mu.Lock()
				got++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if got != 8 {
		t.Errorf("%d of 64 sessions got in, want 8", got)
	}
}
