// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"strings"
	"testing"
	"time"
)

// fail is a session whose first attempt, which must be on the backend of that
// letter, fails.
func fail(t *testing.T, p *Pool, l string, now time.Time) {
	t.Helper()
	b := p.Pick(&State{}, now)
	want(t, "attempt that is to fail", letter(b), l)
	if b != nil {
		p.Failed(b, "refused", now)
	}
}

func TestEjectionTimeline(t *testing.T) {
	for _, board := range []Board{nil, &fakeBoard{}} {
		p, events := newPool(t, board, Options{}, letters(1, 1))
		fail(t, p, "a", t0)
		want(t, "event", events.take(), "backend ejected 198.18.0.0:1000")
		want(t, "a is out", serveN(p, 3, t0), "b b b")
		want(t, "state", p.Backends()[0].Snapshot(t0).State, "ejected")
		// 10 s in whole seconds: out until the clock shows 11 more.
		want(t, "10 s", serveN(p, 2, after(10*time.Second)), "b b")
		want(t, "10.4 s", serveN(p, 2, after(10400*time.Millisecond)), "b b")

		at := after(10500 * time.Millisecond)
		probe := p.Pick(&State{}, at)
		for probe != nil && letter(probe) != "a" { // by its place in the order
			p.Release(probe, at)
			probe = p.Pick(&State{}, at)
		}
		want(t, "one probe only", serveN(p, 4, at), "b b b b")
		p.Failed(probe, "refused", at)
		want(t, "a failed probe is no news", events.take(), "")
		want(t, "out again", serveN(p, 2, after(20*time.Second)), "b b")

		at = after(21500 * time.Millisecond)
		for probe = p.Pick(&State{}, at); letter(probe) != "a"; probe = p.Pick(&State{}, at) {
			p.Release(probe, at)
		}
		p.Connected(probe, 0, at)
		want(t, "event", events.take(), "backend back 198.18.0.0:1000")
		want(t, "state", p.Backends()[0].Snapshot(at).State, "up")
	}
}

func TestSuccessSoonAfterAFailureDoesNotClearIt(t *testing.T) {
	specs := letters(1, 1)
	specs[0].MaxFails = 2
	p, events := newPool(t, nil, Options{}, specs)
	early := p.Pick(&State{}, t0)
	fail(t, p, "b", t0)
	events.take()
	fail(t, p, "a", t0)
	p.Connected(early, 0, t0)
	want(t, "one of two", events.take(), "")
	fail(t, p, "a", after(5*time.Second))
	want(t, "two of two", events.take(), "backend ejected 198.18.0.0:1000")
}

func TestALonePrimaryIsNeverEjected(t *testing.T) {
	p, events := newPool(t, &fakeBoard{}, Options{}, letters(1))
	for range 3 {
		fail(t, p, "a", t0)
		want(t, "events", events.take(), "attempt failed 198.18.0.0:1000")
	}
	want(t, "state", p.Backends()[0].Snapshot(t0).State, "up")

	p.Apply(Options{}, letters(1, 1), t0)
	want(t, "nothing is held against it later", serveN(p, 2, t0), "a b")

	specs := letters(1, 1)
	specs[1].Backup = true
	p, _ = newPool(t, &fakeBoard{}, Options{}, specs)
	fail(t, p, "a", t0)
	want(t, "with a backup it is", serveN(p, 2, t0), "b b")
}

// TestWhyIsTold: who is ejected, or has failed without being ejected for it, is
// told with how its last attempt failed.
func TestWhyIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		maxFails int
		others   int
		want     string
	}{
		"ejected":                  {2, 1, "backend ejected 198.18.0.0:1000: second"},
		"never ejected":            {0, 1, "attempt failed 198.18.0.0:1000: first; attempt failed 198.18.0.0:1000: second"},
		"alone":                    {2, 0, "attempt failed 198.18.0.0:1000: first; attempt failed 198.18.0.0:1000: second"},
		"not enough to be put out": {3, 1, ""},
	} {
		var told []string
		p := New("test", nil, func(e Event) { told = append(told, e.Kind.String()+" "+e.Backend+": "+e.Why) })
		specs := letters(1, 1)[:1+c.others]
		specs[0].MaxFails = c.maxFails
		p.Apply(Options{}, specs, t0)
		a := p.Backends()[0]
		first, second := &State{}, &State{}
		for _, s := range []*State{first, second} {
			for p.Pick(s, t0) != a {
				*s = State{}
			}
		}
		p.Failed(a, "first", t0)
		p.Failed(a, "second", t0)
		want(t, name, strings.Join(told, "; "), c.want)
		if c.others == 0 {
			told = nil
			p.Apply(Options{}, letters(1, 1), t0) // now it is held against it
			p.Failed(a, "third", t0)
			want(t, name+", later", strings.Join(told, "; "), "backend ejected 198.18.0.0:1000: third")
		}
	}
}

func TestAllEjectedFail(t *testing.T) {
	p, events := newPool(t, &fakeBoard{}, Options{}, letters(1, 1))
	s := &State{}
	for range 2 {
		p.Failed(p.Pick(s, t0), "refused", t0)
	}
	events.take()
	for range 2 {
		want(t, "nobody", letter(p.Pick(&State{}, after(time.Second))), "-")
	}
	want(t, "events", events.take(), "no live backend; no live backend")
}

func TestAllEjectedTry(t *testing.T) {
	specs := letters(1, 1, 1, 1)
	specs[2].Backup, specs[3].Backup = true, true
	p, events := newPool(t, &fakeBoard{}, Options{TryEjected: true}, specs)
	// Each session tries everybody once: the ejected primaries before the
	// ejected backups, in turn from session to session.
	for i, expect := range []string{"abcd-", "abcd-", "badc-", "abcd-"} {
		s := &State{}
		var got string
		for range 5 {
			b := p.Pick(s, t0)
			got += letter(b)
			if b != nil {
				p.Failed(b, "refused", t0)
			}
		}
		if got != expect {
			t.Errorf("session %d: %s, want %s", i, got, expect)
		}
	}
	events.take()

	// An eligible backup comes before an ejected primary.
	p.mu.Lock()
	p.backup.all[0].fails = 0
	p.mu.Unlock()
	s := &State{}
	c := p.Pick(s, t0)
	want(t, "eligible backup", letter(c), "c")
	p.Failed(c, "refused", t0)
	b := p.Pick(s, t0)
	want(t, "then a last resort", letter(b), "b")
	p.Connected(b, 0, t0)
	want(t, "its success ends the ejection", events.take(), "backend back 198.18.0.1:1000")
	want(t, "at once", serveN(p, 3, t0), "b b b")
}

func TestLastResortsGoByWeight(t *testing.T) {
	p, _ := newPool(t, nil, Options{TryEjected: true}, letters(5, 1, 1))
	s := &State{}
	for range 3 {
		p.Failed(p.Pick(s, t0), "refused", t0)
	}
	var got string
	for range 7 {
		b := p.Pick(&State{}, t0)
		got += letter(b)
		p.Failed(b, "refused", t0)
	}
	want(t, "first attempts", got, "aabacaa")
}

func TestTryUsesFailingButNotFull(t *testing.T) {
	specs := letters(1, 1)
	specs[1].MaxConns = 1
	p, _ := newPool(t, nil, Options{TryEjected: true}, specs)
	for _, b := range p.Backends() {
		p.SetFailing(b, true, t0)
	}
	var got string
	for range 4 {
		got += letter(p.Pick(&State{}, t0))
	}
	want(t, "last resorts", got, "abaa")
}

func TestMaxFailsZero(t *testing.T) {
	specs := letters(1, 1)
	specs[0].MaxFails, specs[1].MaxFails = 0, 0
	board := &fakeBoard{}
	p, events := newPool(t, board, Options{}, specs)
	fail(t, p, "a", t0)
	fail(t, p, "b", t0)
	fail(t, p, "a", t0)
	want(t, "events", events.take(), "attempt failed 198.18.0.0:1000; attempt failed 198.18.0.1:1000; attempt failed 198.18.0.0:1000")
	if board.opened != 1 || !board.isOpen() {
		t.Errorf("failures that change nothing disturbed the window")
	}
}

func TestFractionOfASecondRoundsUp(t *testing.T) {
	specs := letters(1, 1)
	specs[0].FailTimeout = 1500 * time.Millisecond
	p, _ := newPool(t, nil, Options{}, specs)
	fail(t, p, "a", t0)
	want(t, "2 s on", serveN(p, 3, after(2*time.Second)), "b b b")
	if got := serveN(p, 3, after(3*time.Second)); got == "b b b" {
		t.Errorf("a wasn't probed after 3 s")
	}
}
