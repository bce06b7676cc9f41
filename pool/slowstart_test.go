// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"sluice/config"
)

// slowly is letters with a slow start of 10 s each.
func slowly(weights ...int) []Spec {
	specs := letters(weights...)
	for i := range specs {
		specs[i].SlowStart = 10 * time.Second
	}
	return specs
}

// without leaves backend i out.
func without(specs []Spec, i int) []Spec {
	return slices.Delete(slices.Clone(specs), i, i+1)
}

// shares counts n picks in each of the seconds from `from` on: what part of
// them backend i of the test pool has.
func shares(p *Pool, i, n, seconds int, from time.Time) (out []float64) {
	for second := range seconds {
		got := 0
		for k := range n {
			now := from.Add(time.Duration(second)*time.Second + time.Duration(k)*time.Second/time.Duration(n))
			if b := serve(p, now); b != nil && b.Addr == addr(i) {
				got++
			}
		}
		out = append(out, float64(got)/float64(n))
	}
	return out
}

// wantClimb checks the shares of a slow start of 10 s, and of 2 s after it.
func wantClimb(t *testing.T, got []float64, whole, tolerance float64) {
	t.Helper()
	for second, share := range got {
		expect := whole * min(1, 0.1+0.9*(float64(second)+0.5)/10)
		if math.Abs(share-expect) > tolerance*whole {
			t.Errorf("second %d: a share of %.4f, want %.4f (whole %.4f); all: %.3f", second, share, expect, whole, got)
		}
	}
}

func TestSlowStartShares(t *testing.T) {
	for _, balance := range []config.Balance{config.RoundRobin, config.LeastConn, config.RandomTwo} {
		for _, weights := range [][]int{{1, 1}, {5, 1, 1}, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, {1000, 10, 1}} {
			for i := range weights {
				if i > 2 {
					break
				}
				t.Run(fmt.Sprintf("%s/%v/%d", balance, weights, i), func(t *testing.T) {
					t.Parallel()
					specs := slowly(weights...)
					p, _ := newPool(t, &fakeBoard{}, Options{Balance: balance}, without(specs, i))
					p.random = rand.New(rand.NewPCG(1, 2)).Int64N
					serveN(p, 100, t0)
					p.Apply(Options{Balance: balance}, specs, t0)
					total := 0
					for _, w := range weights {
						total += w
					}
					n := 2000
					if weights[i]*100 < total || balance == config.RandomTwo {
						n = 10000
					}
					whole, tolerance := float64(weights[i])/float64(total), 0.01
					// Light ones have few picks a second.
					tolerance += 2 / (whole * float64(n))
					if balance == config.RandomTwo {
						// Two different ones are drawn: the shares of other
						// weights than equal ones aren't the weights'.
						if slices.Min(weights) != slices.Max(weights) {
							t.Skip("a share isn't the weight's")
						}
						tolerance += 0.12 // draws
					}
					wantClimb(t, shares(p, i, n, 12, t0), whole, tolerance)
				})
			}
		}
	}
}

// With random_two a share is what draws of two give; a slow start bounds it by
// the weight's part all the same.
func TestSlowStartBoundsRandomTwo(t *testing.T) {
	specs := slowly(5, 1, 1)
	p, _ := newPool(t, nil, Options{Balance: config.RandomTwo}, specs[:2])
	p.random = rand.New(rand.NewPCG(3, 4)).Int64N
	p.Apply(Options{Balance: config.RandomTwo}, specs, t0)
	for second, share := range shares(p, 2, 10000, 10, t0) {
		if most := (slowFrom + (1-slowFrom)*float64(second+1)/10) / 7; share > most+0.002 || share < most/3 {
			t.Errorf("second %d: %.4f, at most %.4f", second, share, most)
		}
	}
}

// Sessions that stay: least_conn would send all to the newcomer.
func TestSlowStartOfAnEmptyOneAmongFull(t *testing.T) {
	specs := slowly(1, 1)
	p, _ := newPool(t, nil, Options{Balance: config.LeastConn}, specs[:1])
	for range 20000 {
		p.Pick(&State{}, t0)
	}
	p.Apply(Options{Balance: config.LeastConn}, specs, t0)
	var got []float64
	for second := range 10 {
		n := 0
		for k := range 1000 {
			if letter(p.Pick(&State{}, after(time.Duration(second)*time.Second+time.Duration(k)*time.Millisecond))) == "b" {
				n++
			}
		}
		got = append(got, float64(n)/1000)
	}
	wantClimb(t, got, 0.5, 0.02)
}

// Each way to come (back), and those that are none. "b" is the one that comes.
func TestWhoStartsSlowly(t *testing.T) {
	at := after(time.Minute)
	specs := slowly(1, 1)
	down := func(s config.State) []Spec {
		d := slices.Clone(specs)
		d[1].State = s
		return d
	}
	held := func(p *Pool) { // both have a session
		p.Pick(&State{}, t0)
		p.Pick(&State{}, t0)
	}
	eject := func(p *Pool, which string) {
		for range 2 {
			b := p.Pick(&State{}, t0)
			if letter(b) == which {
				p.Failed(b, "refused", t0)
				return
			}
			p.Release(b, t0)
		}
		t.Fatalf("%s wasn't picked", which)
	}
	probe := func(p *Pool, which string) {
		for range 3 {
			b := p.Pick(&State{}, at)
			p.Connected(b, 0, at)
			p.Release(b, at)
			if letter(b) == which {
				return
			}
		}
		t.Fatalf("%s wasn't probed", which)
	}
	for _, c := range []struct {
		name  string
		start []Spec
		come  func(p *Pool)
		slow  bool
	}{
		{"at the start", specs, func(*Pool) {}, false},
		{"an edit that changes nothing", specs, func(p *Pool) { p.Apply(Options{}, specs, at) }, false},
		{"added", specs[:1], func(p *Pool) { p.Apply(Options{}, specs, at) }, true},
		{"added without the option", specs[:1], func(p *Pool) { p.Apply(Options{}, append(slowly(1), spec(1, 1)), at) }, false},
		{"put back while it has sessions", specs, func(p *Pool) {
			held(p)
			p.Apply(Options{}, specs[:1], t0)
			p.Apply(Options{}, specs, at)
		}, true},
		{"from drain", down(config.Drain), func(p *Pool) { p.Apply(Options{}, specs, at) }, true},
		{"from down", down(config.Down), func(p *Pool) { p.Apply(Options{}, specs, at) }, true},
		{"from failing", specs, func(p *Pool) {
			p.SetFailing(p.Backends()[1], true, t0)
			p.SetFailing(p.Backends()[1], false, at)
		}, true},
		{"from ejection", specs, func(p *Pool) { eject(p, "b"); probe(p, "b") }, true},
		{"from ejection by an edit", specs, func(p *Pool) {
			eject(p, "b")
			o := slices.Clone(specs)
			o[1].MaxFails = 0
			p.Apply(Options{}, o, at)
		}, true},
		{"a failure that ejects nobody", func() []Spec {
			s := slices.Clone(specs)
			s[1].MaxFails = 2
			return s
		}(), func(p *Pool) { eject(p, "b"); probe(p, "b") }, false},
		{"as the only one", specs, func(p *Pool) {
			p.SetFailing(p.Backends()[0], true, t0)
			p.SetFailing(p.Backends()[1], true, t0)
			p.SetFailing(p.Backends()[1], false, at)
			p.SetFailing(p.Backends()[0], false, at.Add(-time.Hour)) // long ago: over by now
		}, false},
		{"instead of the only one", specs[:1], func(p *Pool) {
			p.Apply(Options{}, specs[1:], at)
			p.Apply(Options{}, append([]Spec{spec(0, 1)}, specs[1:]...), at)
		}, false},
		{"back while everybody else is out", specs, func(p *Pool) {
			eject(p, "b")
			p.SetFailing(p.Backends()[0], true, t0)
			probe(p, "b")
			p.SetFailing(p.Backends()[0], false, at.Add(-time.Hour))
		}, false},
		{"the option taken away meanwhile", specs[:1], func(p *Pool) {
			p.Apply(Options{}, specs, at)
			p.Apply(Options{}, letters(1, 1), at)
		}, false},
		{"ejected while it climbs", specs[:1], func(p *Pool) {
			p.Apply(Options{}, specs, t0)
			b := p.Backends()[1]
			p.mu.Lock()
			b.conns++
			p.mu.Unlock()
			p.Failed(b, "refused", t0)
			probe(p, "b")
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			board := &fakeBoard{}
			p, _ := newPool(t, board, Options{}, c.start)
			c.come(p)
			p.Tick(at.Add(windowQuiet))
			if board.isOpen() == c.slow {
				t.Errorf("window open %v beside a slow start %v", board.isOpen(), c.slow)
			}
			n := 0
			for range 100 {
				if letter(serve(p, at.Add(windowQuiet))) == "b" {
					n++
				}
			}
			if c.slow && (n < 3 || n > 8) || !c.slow && (n < 49 || n > 51) {
				t.Errorf("%d of 100 picks, slow %v", n, c.slow)
			}
			// After it nginx's order goes on, and the window with it.
			later := at.Add(time.Minute)
			p.Tick(later)
			p.Tick(later.Add(windowQuiet))
			if !board.isOpen() {
				t.Error("no window after the slow start")
			}
			if s := serveN(p, 6, later.Add(windowQuiet)); s != "a b a b a b" && s != "b a b a b a" {
				t.Errorf("after it: %s", s)
			}
		})
	}
}

// Several that climb at once share what they have to share; nobody is starved.
func TestSlowStartsAmongThemselves(t *testing.T) {
	specs := slowly(2, 1, 1)
	p, _ := newPool(t, nil, Options{}, specs[:1])
	p.Apply(Options{}, specs, t0)
	count := map[string]int{}
	for range 1000 {
		count[letter(serve(p, t0))]++
	}
	if count["a"] < 945 || count["a"] > 955 || count["b"] < 24 || count["c"] < 24 {
		t.Errorf("two of three climb: %v", count)
	}
	// The one that doesn't climb goes: the others have all, in equal parts.
	p.SetFailing(p.Backends()[0], true, t0)
	count = map[string]int{}
	for range 1000 {
		count[letter(serve(p, t0))]++
	}
	if count["b"] < 495 || count["c"] < 495 || count["-"] != 0 {
		t.Errorf("only those that climb are left: %v", count)
	}
}

// Those that don't climb keep nginx's order among themselves.
func TestSlowStartKeepsTheOthersPlaces(t *testing.T) {
	specs := slowly(5, 1, 1, 1)
	p, _ := newPool(t, &fakeBoard{}, Options{}, specs[:3])
	got := serveN(p, 3, t0)
	p.Apply(Options{}, specs, t0)
	want(t, "the sequence of 5,1,1", got+" "+serveN(p, 11, t0), "a a b a c a a a a b a c a a")
}

// With balance: hash a slow start is a part of the backend's own clients, and
// each of them moves once.
func TestSlowStartOfAHash(t *testing.T) {
	const clients = 4000
	specs := slowly(1, 1, 1)
	o := Options{Balance: config.Hash}
	p, _ := newPool(t, nil, o, specs)
	pick := func(i int, now time.Time) string {
		b := p.Pick(&State{Key: client(i)}, now)
		p.Release(b, now)
		return letter(b)
	}
	home, last := make([]string, clients), make([]string, clients)
	own := 0
	for i := range clients {
		home[i] = pick(i, t0)
		if home[i] == "b" {
			own++
		}
	}
	p.SetFailing(p.Backends()[1], true, t0)
	for i := range clients {
		last[i] = pick(i, t0)
	}
	p.SetFailing(p.Backends()[1], false, t0)
	for second := range 11 {
		n := 0
		for i := range clients {
			got := pick(i, after(time.Duration(second)*time.Second))
			if got != last[i] && got != home[i] || home[i] != "b" && got != home[i] {
				t.Fatalf("second %d: client %d of %s moved from %s to %s", second, i, home[i], last[i], got)
			}
			if last[i] = got; got == "b" {
				n++
			}
		}
		expect := float64(own) * min(1, 0.1+0.9*float64(second)/10)
		if math.Abs(float64(n)-expect) > 0.05*float64(own) {
			t.Errorf("second %d: %d of its %d clients, want %.0f", second, n, own, expect)
		}
	}
	// Nobody else is left: all go to it.
	p.SetFailing(p.Backends()[1], true, after(time.Minute))
	p.SetFailing(p.Backends()[1], false, after(time.Minute))
	for _, i := range []int{0, 2} {
		p.SetFailing(p.Backends()[i], true, after(time.Minute))
	}
	for i := range 100 {
		want(t, "the only one left", pick(i, after(time.Minute)), "b")
	}
}
