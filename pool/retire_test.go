// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"testing"
	"time"
)

// TestRetire: a pool out of the file shows nothing but what has sessions, yet
// serves who was let in before, in its order; and it can come back.
func TestRetire(t *testing.T) {
	board := &fakeBoard{}
	p, _ := newPool(t, board, Options{}, letters(5, 1, 1))
	want(t, "before", serveN(p, 3, t0), "a a b")
	held := p.Pick(&State{}, t0)
	want(t, "held", letter(held), "a")
	if got := len(p.Retire(t0)); got != 3 {
		t.Errorf("%d removed", got)
	}
	opened := board.opened
	if list := p.Backends(); len(list) != 1 || list[0] != held || held.Snapshot(t0).State != "removed" {
		t.Errorf("%v is what it shows", list)
	}
	c := p.Pick(&State{}, t0)
	want(t, "goes on", letter(c)+" "+serveN(p, 3, after(time.Minute)), "c a a a")
	if list := p.Backends(); len(list) != 2 || list[1] != c || c.Snapshot(t0).State != "removed" {
		t.Errorf("%v is what it shows with one more", list)
	}
	p.Release(c, t0)
	p.Release(held, t0)
	if list := p.Backends(); len(list) != 0 || board.opened != opened {
		t.Errorf("%v is what it shows at the end, %d windows opened", list, board.opened-opened)
	}
	if got := p.Retire(t0); len(got) != 0 {
		t.Errorf("%d removed again", len(got))
	}
	if got := p.Apply(Options{}, letters(5, 1), t0); len(got) != 0 {
		t.Errorf("%d were removed while coming back", len(got))
	}
	if list := p.Backends(); len(list) != 2 || list[0] != held {
		t.Errorf("%v came back", list)
	}
}

// TestTriedElsewhere: a retry in another pool leaves out the same server.
func TestTriedElsewhere(t *testing.T) {
	p, _ := newPool(t, nil, Options{}, letters(1, 1))
	q, _ := newPool(t, nil, Options{}, letters(1, 1, 1))
	s := &State{}
	p.Failed(p.Pick(s, t0), "refused", t0)
	p.Failed(p.Pick(s, t0), "refused", t0)
	want(t, "in the other", letter(q.Pick(s, t0)), "c")
	want(t, "and then", letter(q.Pick(s, t0)), "-")
	// Removed and put back it is a new backend, but the same server.
	s = &State{}
	b := q.Pick(s, t0)
	want(t, "first", letter(b), "a")
	q.Release(b, t0)
	q.Apply(Options{}, letters(1)[:0], t0)
	q.Apply(Options{}, letters(1), t0)
	want(t, "put back", letter(q.Pick(s, t0)), "-")
}
