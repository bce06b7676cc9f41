// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"math/rand/v2"
	"testing"
	"time"

	"sluice/config"
)

func TestGoldenSequences(t *testing.T) {
	for _, c := range []struct {
		weights []int
		want    string
	}{
		{[]int{5, 1, 1}, "a a b a c a a a a b a c a a"},
		{[]int{1, 1}, "a b a b"},
		{[]int{1, 1, 1}, "a b c a b c"},
		{[]int{2, 1}, "a b a a b a"},
		{[]int{1}, "a a a"},
		{[]int{1, 2, 3}, "c b a c b c c b a c b c"},
		{[]int{65535, 1}, "a a a a"},
	} {
		for _, board := range []Board{nil, &fakeBoard{}} {
			p, _ := newPool(t, board, Options{}, letters(c.weights...))
			p.Tick(t0) // housekeeping consumes no pick
			want(t, c.want, serveN(p, (len(c.want)+1)/2, t0), c.want)
		}
	}
}

func TestStates(t *testing.T) {
	specs := letters(1, 1, 1, 1)
	specs[0].State = config.Drain
	specs[1].State = config.Down
	specs[2].Addr = Addr{Name: "db:1"}
	specs[2].State = config.Up
	p, _ := newPool(t, nil, Options{TryEjected: true}, specs)
	want(t, "picks", serveN(p, 3, t0), "d d d")
	if got := p.Tries(); got != 2 { // the draining one counts, those that are down don't
		t.Errorf("tries %d, want 2", got)
	}
	var states string
	for _, b := range p.Backends() {
		states += b.Snapshot(t0).State + " "
	}
	want(t, "states", states, "drain down down up ")
	s := &State{}
	d := p.Pick(s, t0)
	p.Failed(d, "refused", t0)
	want(t, "a last resort never drains", letter(p.Pick(s, t0)), "-")
}

func TestRetryLeavesOutTheTried(t *testing.T) {
	specs := letters(1, 1, 1, 1, 1, 1)
	for i := range specs {
		specs[i].MaxFails = 0
	}
	p, events := newPool(t, &fakeBoard{}, Options{TryEjected: true}, specs)
	s := &State{}
	var got string
	for range 7 {
		b := p.Pick(s, t0)
		got += letter(b)
		if b != nil {
			p.Failed(b, "refused", t0)
			want(t, "event", events.take(), "attempt failed "+b.Addr.String())
		}
	}
	want(t, "one session", got, "abcdef-")
	want(t, "events", events.take(), "no live backend")
}

func TestMaxConnsIsExact(t *testing.T) {
	specs := letters(3, 1)
	specs[0].MaxConns, specs[1].MaxConns = 2, 1
	p, events := newPool(t, &fakeBoard{}, Options{TryEjected: true}, specs)
	var held []*Backend
	var got string
	for range 4 {
		b := p.Pick(&State{}, t0)
		got += letter(b)
		if b != nil {
			held = append(held, b)
		}
	}
	want(t, "until full", got, "aab-")
	want(t, "events", events.take(), "no live backend")
	p.Release(held[0], t0)
	want(t, "one is free", letter(p.Pick(&State{}, t0)), "a")
	want(t, "full again", letter(p.Pick(&State{}, t0)), "-")
}

// "Full" is an answer only where nothing but max_conns is in the way; nothing
// is told then, and the same session finds whoever has been released meanwhile.
func TestPickOrFull(t *testing.T) {
	limited := func(n int) []Spec {
		specs := letters(1, 1)[:n]
		for i := range specs {
			specs[i].MaxConns = 1
		}
		return specs
	}
	for _, c := range []struct {
		name  string
		specs []Spec
		opts  Options
		spoil func(p *Pool, b *Backend) // b is the last one
		full  bool
	}{
		{name: "both full", specs: limited(2), full: true},
		{name: "a lone one", specs: limited(1), full: true},
		{name: "a hash", specs: limited(2), opts: Options{Balance: config.Hash}, full: true},
		{name: "nobody at all"},
		{name: "failing and full", specs: limited(1), spoil: func(p *Pool, b *Backend) { p.SetFailing(b, true, t0) }},
		{name: "failing and full, but tried all the same", specs: limited(1), opts: Options{TryEjected: true},
			spoil: func(p *Pool, b *Backend) { p.SetFailing(b, true, t0) }, full: true},
		{name: "draining and full", specs: limited(1), opts: Options{TryEjected: true},
			spoil: func(p *Pool, b *Backend) {
				specs := limited(1)
				specs[0].State = config.Drain
				p.Apply(p.Options(), specs, t0)
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, events := newPool(t, nil, c.opts, c.specs)
			var last *Backend
			for range c.specs {
				var full bool
				if last, full, _ = p.PickOrFull(&State{}, 0, t0); last == nil || full {
					t.Fatalf("%v, full %v with places left", last, full)
				}
			}
			if c.spoil != nil {
				c.spoil(p, last)
			}
			s := &State{}
			b, full, left := p.PickOrFull(s, 0, t0)
			if b != nil || full != c.full {
				t.Fatalf("%v, full %v, want nobody, full %v", b, full, c.full)
			}
			if !full {
				want(t, "events", events.take(), "no live backend")
				return
			}
			want(t, "events of a first try", events.take(), "")
			if s.Tried() != 0 {
				t.Errorf("%d tried by a pick in vain", s.Tried())
			}
			if b, full, again := p.PickOrFull(s, last.ID, t0); b != nil || !full || again != left {
				t.Errorf("%v, full %v, %d left after %d for a proposal that is full", b, full, again, left)
			}
			if b := p.Pick(s, t0); b != nil {
				t.Errorf("%v is over its limit", b.Addr)
			}
			want(t, "events of the last word", events.take(), "no live backend")
			p.Release(last, t0)
			if b, _, again := p.PickOrFull(s, 0, t0); b != last || again != left+1 {
				t.Errorf("picked %v after a release, want %v; %d left after %d", b, last.Addr, again, left)
			}
		})
	}
	// A session that has tried the full one already isn't kept by its limit.
	p, events := newPool(t, nil, Options{}, limited(1))
	s := &State{}
	p.Failed(p.Pick(s, t0), "refused", t0)
	events.take()
	p.Pick(&State{}, t0)
	if b, full, _ := p.PickOrFull(s, 0, t0); b != nil || full {
		t.Errorf("%v, full %v: the only one was tried", b, full)
	}
	want(t, "events", events.take(), "no live backend")
}

func TestBackups(t *testing.T) {
	specs := letters(1, 1, 2, 1)
	specs[2].Backup, specs[3].Backup = true, true
	p, _ := newPool(t, &fakeBoard{}, Options{}, specs)
	want(t, "primaries", serveN(p, 4, t0), "a b a b")
	for _, b := range p.Backends()[:2] {
		p.SetFailing(b, true, t0)
	}
	want(t, "backups in their own order", serveN(p, 6, t0), "c d c c d c")
	want(t, "state", p.Backends()[0].Snapshot(t0).State, "failing")
	for _, b := range p.Backends()[:2] {
		p.SetFailing(b, false, t0)
	}
	want(t, "primaries again", serveN(p, 4, t0), "a b a b")
}

func TestLeastConn(t *testing.T) {
	p, _ := newPool(t, &fakeBoard{}, Options{Balance: config.LeastConn}, letters(2, 1))
	count := map[string]int{}
	var held []*Backend
	for range 30 {
		b := p.Pick(&State{}, t0)
		count[letter(b)]++
		held = append(held, b)
	}
	if count["a"] != 20 || count["b"] != 10 {
		t.Errorf("30 sessions over weights 2,1: %v", count)
	}
	for _, b := range held {
		if letter(b) == "b" {
			p.Release(b, t0)
		}
	}
	for range 10 {
		want(t, "the emptier one", letter(p.Pick(&State{}, t0)), "b")
	}
}

func TestRandomTwo(t *testing.T) {
	p, _ := newPool(t, nil, Options{Balance: config.RandomTwo}, letters(1, 2, 1))
	draws := []int64{}
	p.random = func(n int64) int64 {
		if n != 4 {
			t.Fatalf("drawn from %d, want the sum of the weights", n)
		}
		x := draws[0]
		draws = draws[1:]
		return x
	}
	for _, c := range []struct {
		draws []int64
		want  string
	}{
		{[]int64{0, 1}, "b"},       // equal: the second, as in nginx
		{[]int64{1, 2, 3, 0}, "c"}, // b twice is one; c is free, b has one
		{[]int64{0, 3}, "a"},       // c has one
		{[]int64{0, 2}, "b"},       // 1/1 against 1/2
		{[]int64{2, 0}, "a"},       // 2/2 against 1/1: equal, the second
		{[]int64{0, 1}, "b"},       // 2/1 against 2/2
	} {
		draws = c.draws
		want(t, "pick", letter(p.Pick(&State{}, t0)), c.want)
	}
}

func TestRandomTwoSpreads(t *testing.T) {
	p, _ := newPool(t, nil, Options{Balance: config.RandomTwo}, letters(1, 1, 1, 1))
	p.random = rand.New(rand.NewPCG(1, 2)).Int64N
	p.SetFailing(p.Backends()[3], true, t0)
	count := map[string]int{}
	for range 300 {
		count[letter(p.Pick(&State{}, t0))]++
	}
	for _, l := range []string{"a", "b", "c"} {
		if count[l] < 95 || count[l] > 105 {
			t.Errorf("%s has %d of 300", l, count[l])
		}
	}
	if count["d"] != 0 {
		t.Errorf("a failing backend was picked")
	}
}

func TestSnapshot(t *testing.T) {
	p, _ := newPool(t, nil, Options{}, letters(1, 1))
	a := p.Pick(&State{}, t0)
	p.Connected(a, 2*time.Millisecond, t0)
	a.AddBytes(7, 3)
	for range 2 {
		serve(p, t0)
	}
	p.Failed(p.Pick(&State{}, t0), "refused", t0)
	st := a.Snapshot(t0)
	if st.Active != 1 || st.Total != 2 || st.Failed != 0 || st.Received != 7 || st.Sent != 3 {
		t.Errorf("a: %+v", st)
	}
	if want := 0.003; st.ConnectSeconds < want-1e-9 || st.ConnectSeconds > want+1e-9 {
		t.Errorf("connect seconds %v, want %v", st.ConnectSeconds, want)
	}
	if len(st.ConnectBuckets) != len(ConnectBounds()) {
		t.Fatalf("%d buckets, %d bounds", len(st.ConnectBuckets), len(ConnectBounds()))
	}
	for i, n := range st.ConnectBuckets {
		expect := uint64(0)
		if bound := ConnectBounds()[i]; bound >= 0.002 {
			expect = 2
		} else if bound >= 0.001 {
			expect = 1
		}
		if n != expect {
			t.Errorf("bucket %v has %d, want %d", ConnectBounds()[i], n, expect)
		}
	}
	if st := p.Backends()[1].Snapshot(t0); st.Failed != 1 || st.Active != 0 || st.State != "ejected" {
		t.Errorf("b: %+v", st)
	}
}
