// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/config"
)

func TestApplyKeepsThePlace(t *testing.T) {
	specs := letters(5, 1, 1)
	for _, board := range []Board{nil, &fakeBoard{}} {
		for at := range 8 {
			p, _ := newPool(t, board, Options{}, specs)
			got := serveN(p, at, t0)
			p.Apply(Options{TryEjected: true}, specs, t0)
			got = strings.TrimSpace(got + " " + serveN(p, 14-at, t0))
			want(t, fmt.Sprintf("update after %d", at), got, "a a b a c a a a a b a c a a")
			p.Close()
		}
	}
}

func TestApplyNewcomerStartsAtZero(t *testing.T) {
	p, _ := newPool(t, &fakeBoard{}, Options{}, letters(1, 1))
	want(t, "before", serveN(p, 3, t0), "a b a") // a is at -1, b at +1
	p.Apply(Options{}, letters(1, 1, 1), t0)
	want(t, "after", serveN(p, 6, t0), "b c a b c a")
	// What is first in the file matters among equals only.
	ids := map[uint32]bool{}
	for _, b := range p.Backends() {
		ids[b.ID] = true
	}
	specs := letters(1, 1, 1)
	specs[0], specs[2] = specs[2], specs[0]
	p.Apply(Options{}, specs, t0)
	for _, b := range p.Backends() {
		if !ids[b.ID] {
			t.Errorf("%s isn't the same backend after a reordering", b.Addr)
		}
	}
}

func TestApplyKeepsEjectionAndCounters(t *testing.T) {
	p, events := newPool(t, &fakeBoard{}, Options{}, letters(1, 1))
	fail(t, p, "a", t0)
	events.take()
	p.Apply(Options{}, letters(1, 1, 1), after(time.Second))
	want(t, "still ejected", serveN(p, 4, after(time.Second)), "b c b c")
	if st := p.Backends()[0].Snapshot(t0); st.State != "ejected" || st.Failed != 1 {
		t.Errorf("%+v", st)
	}
	specs := letters(1, 1, 1)
	specs[0].MaxFails = 0
	p.Apply(Options{}, specs, after(time.Second))
	want(t, "not to be ejected any more", events.take(), "backend back 198.18.0.0:1000")
	p.Apply(Options{}, letters(1, 1), after(2*time.Second))
	want(t, "to be ejected after all", events.take(), "backend ejected 198.18.0.0:1000")
	p.Apply(Options{}, letters(1), after(2*time.Second))
	want(t, "the only one", events.take(), "backend back 198.18.0.0:1000")
	want(t, "serves", serveN(p, 2, after(2*time.Second)), "a a")
}

func TestApplyChangedWeight(t *testing.T) {
	p, _ := newPool(t, &fakeBoard{}, Options{}, letters(1000, 1000))
	serve(p, t0) // a is owed -1000, b +1000
	p.Apply(Options{}, letters(1, 1), t0)
	want(t, "same place in a smaller round", serveN(p, 5, t0), "b a b a b")
	specs := letters(3, 1)
	p.Apply(Options{}, specs, t0)
	count := map[string]int{}
	for range 400 {
		count[letter(serve(p, t0))]++
	}
	if count["a"] < 299 || count["a"] > 301 {
		t.Errorf("weights 3,1: %v", count)
	}
}

func TestRemovedAndPutBack(t *testing.T) {
	p, _ := newPool(t, &fakeBoard{}, Options{}, letters(1, 1, 1))
	a, b := p.Pick(&State{}, t0), p.Pick(&State{}, t0)
	p.Connected(a, 0, t0)
	a.AddBytes(10, 20)
	removed := p.Apply(Options{}, letters(1, 1, 1)[2:], t0)
	if len(removed) != 2 || removed[0] != a || removed[1] != b {
		t.Fatalf("removed %v", removed)
	}
	want(t, "the rest", serveN(p, 2, t0), "c c")
	want(t, "state", a.Snapshot(t0).State, "removed")
	if got := p.Backends(); len(got) != 3 || got[0].Addr != addr(2) || got[1] != a || got[2] != b {
		t.Fatalf("backends %v", got)
	}
	if again := p.Apply(Options{}, letters(1, 1, 1)[2:], t0); len(again) != 0 {
		t.Errorf("removed a second time: %v", again)
	}
	p.Failed(b, "refused", t0) // its last one: forgotten
	p.Apply(Options{}, letters(1, 1, 1), t0)
	now := p.Backends()
	if len(now) != 3 || now[0] != a {
		t.Fatalf("a isn't the same backend after it was put back: %v", now)
	}
	if now[1] == b || now[1].ID == b.ID || now[1].Snapshot(t0).Failed != 0 {
		t.Errorf("b had no sessions and must be a newcomer")
	}
	if st := a.Snapshot(t0); st.State != "up" || st.Active != 1 || st.Received != 10 || st.Total != 1 {
		t.Errorf("revived: %+v", st)
	}
	p.Apply(Options{}, letters(1, 1, 1)[1:], t0)
	p.Release(a, t0)
	if got := p.Backends(); len(got) != 2 {
		t.Errorf("a removed backend outlives its last session: %v", got)
	}
}

func TestApplyDuplicateCountsOnce(t *testing.T) {
	specs := append(letters(2, 1), spec(0, 9))
	p, _ := newPool(t, nil, Options{}, specs)
	if got := p.Backends(); len(got) != 2 || got[0].Spec().Weight != 2 {
		t.Errorf("backends %v", got)
	}
}

func TestApplyBalanceAndEmpty(t *testing.T) {
	board := &fakeBoard{}
	p, _ := newPool(t, board, Options{}, letters(1, 1))
	want(t, "first", serveN(p, 1, t0), "a")
	p.Apply(Options{Balance: config.LeastConn}, letters(1, 1), t0)
	if board.isOpen() {
		t.Error("least_conn has no window")
	}
	p.Apply(Options{Balance: config.RoundRobin}, letters(1, 1), t0)
	want(t, "goes on", serveN(p, 2, t0), "b a")
	p.Apply(Options{}, nil, t0)
	want(t, "empty", letter(p.Pick(&State{}, t0)), "-")
	p.Close()
	p.Close()
}

func TestBackendNumbersAreUniqueOverPools(t *testing.T) {
	seen := map[uint32]bool{0: true}
	for range 3 {
		p, _ := newPool(t, nil, Options{}, letters(1, 1, 1))
		for _, b := range p.Backends() {
			if seen[b.ID] {
				t.Errorf("number %d is used twice", b.ID)
			}
			seen[b.ID] = true
		}
	}
}

// What is slow about an edit is done before Commit, which the event loops wait
// for: counted in tables, whatever the edit changes.
func TestCommitFillsNoTable(t *testing.T) {
	built := 0
	p := New("test", nil, nil)
	p.newTable = func(e []tableEntry) *maglev {
		built++
		return newMaglev(e)
	}
	specs := equal(1000)
	specs[999].Backup = true
	other, heavier := equal(1001), equal(1001)
	heavier[3].Weight = 2
	hash := Options{Balance: config.Hash}
	for _, c := range []struct {
		name   string
		o      Options
		specs  []Spec
		tables int
	}{
		{"at first", hash, specs, 2},
		{"again", hash, specs, 0},
		{"another option", Options{Balance: config.Hash, TryEjected: true}, specs, 0},
		{"more of them", hash, other, 1},
		{"other weights", hash, heavier, 1},
		{"round robin", Options{}, heavier, 0},
		{"nobody", hash, nil, 0},
	} {
		built = 0
		next := p.Prepare(c.o, c.specs)
		if built != c.tables {
			t.Errorf("%s: prepared with %d tables, want %d", c.name, built, c.tables)
		}
		if got := p.Options(); c.name != "again" && got == next.opts && slices.Equal(p.specs, next.specs) {
			t.Errorf("%s: in force before it is committed", c.name)
		}
		built = 0
		p.Commit(next, t0)
		if built != 0 {
			t.Errorf("%s: Commit filled %d tables", c.name, built)
		}
		if p.Options() != next.opts || len(p.Backends()) != len(c.specs) {
			t.Errorf("%s: not in force", c.name)
		}
	}
	// What was prepared before another edit is right all the same.
	early := p.Prepare(hash, specs)
	p.Apply(hash, other, t0)
	p.Commit(early, t0)
	for i := range 100 {
		if b := p.Pick(&State{Key: client(i)}, t0); b == nil || b.spec.Backup {
			t.Fatal("no pick by the tables that were prepared early")
		}
	}
}

// An edit of something else doesn't disturb a pool.
func TestCommitOfTheSameLeavesAlone(t *testing.T) {
	board := &fakeBoard{}
	p, _ := newPool(t, board, Options{}, letters(5, 1, 1))
	got := serveN(p, 3, t0)
	for range 3 {
		if removed := p.Apply(Options{}, letters(5, 1, 1), t0); removed != nil {
			t.Errorf("removed %v", removed)
		}
	}
	if board.opened != 1 {
		t.Errorf("%d windows for nothing new", board.opened)
	}
	want(t, "the sequence", got+" "+serveN(p, 4, t0), "a a b a c a a")
	p.Retire(t0)
	p.Apply(Options{}, letters(5, 1, 1), t0)
	if !board.isOpen() || p.Backends()[0].Snapshot(t0).State != "up" {
		t.Error("put back as it was: still retired")
	}
}
