// SPDX-License-Identifier: Apache-2.0

package session

import (
	"testing"

	"sluice/accesslog"
	"sluice/config"
	"sluice/pool"
)

// TestCrowd: a session that a limit keeps out is refused when nobody has gone
// between two looks, with every end that had arrived seen to in between.
func TestCrowd(t *testing.T) {
	full := spec(1)
	full.MaxConns = 1
	for _, tt := range []struct {
		name     string
		listener config.Listener
		backend  pool.Spec
		verdict  Verdict
	}{
		{"listener", config.Listener{MaxConns: 1}, spec(1), Limited},
		{"address", config.Listener{MaxConnsPerIP: 1}, spec(1), Limited},
		{"backend", config.Listener{}, full, NoBackend},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, tt.listener, tt.backend)
			come := func() *Session { return r.begin(client) }
			in := func() *Session {
				t.Helper()
				s := come()
				if v := s.Choose(r, r.now); v != Picked {
					t.Fatalf("verdict %d with a place free", v)
				}
				return s
			}
			gone := func(s *Session) { r.end(s, 200, accesslog.ClientClosed, Totals{}) }
			look := func(s *Session, want Verdict, ending bool) {
				t.Helper()
				if v := s.Again(r, ending, r.now); v != want {
					t.Fatalf("verdict %d, want %d", v, want)
				}
			}

			first := in()
			s := come()
			if v := s.Choose(r, r.now); v != Crowded {
				t.Fatalf("verdict %d at the first look", v)
			}
			gone(first)
			look(s, Picked, false) // its end had arrived
			gone(s)

			// Another takes the place: that one goes as well, and one more comes.
			first = in()
			s = come()
			s.Choose(r, r.now)
			for range 3 {
				gone(first)
				first = in()
				look(s, Crowded, false)
			}
			look(s, tt.verdict, false) // the same one was there all the time
			if s.Backend != nil {
				t.Error("a backend for nobody")
			}
			status, reason := s.Refusal(tt.verdict)
			r.end(s, status, reason, Totals{})

			// One that is ending is waited for, but not for ever.
			s = come()
			s.Choose(r, r.now)
			for range mostPatient - 1 {
				look(s, Crowded, true)
			}
			look(s, tt.verdict, true)
			r.end(s, status, reason, Totals{})

			// So is the place that is always another's.
			s = come()
			s.Choose(r, r.now)
			for range mostLooks - 1 {
				gone(first)
				first = in()
				look(s, Crowded, false)
			}
			gone(first)
			first = in()
			look(s, tt.verdict, false)
			r.end(s, status, reason, Totals{})
			gone(first)
			gone(in())
			if got := r.reg.Live(); got != 0 {
				t.Errorf("%d live", got)
			}
		})
	}
}

// TestCrowdMovesOn: an edit while a session is kept out gives it the new
// listener's limits, and its place in the old one's back.
func TestCrowdMovesOn(t *testing.T) {
	full := spec(1)
	full.MaxConns = 1
	r := newRig(t, config.Listener{MaxConns: 2}, full)
	old := r.source.Load()
	first := r.begin(client)
	first.Choose(r, r.now)
	s := r.begin(client)
	if v := s.Choose(r, r.now); v != Crowded {
		t.Fatalf("verdict %d", v)
	}
	r.put("m", "q", config.Listener{MaxConns: 1}, spec(2))
	if v := s.Again(r, false, r.now); v != Picked || s.Backend.Addr != spec(2).Addr {
		t.Fatalf("verdict %d, backend %v", v, s.Backend)
	}
	if old.Limits.total != 1 || r.source.Load().Limits.total != 1 {
		t.Errorf("%d in the old listener, %d in the new one", old.Limits.total, r.source.Load().Limits.total)
	}
	for _, s := range []*Session{s, first} {
		r.end(s, 200, accesslog.ClientClosed, Totals{})
	}
	if n := old.Limits.total + r.source.Load().Limits.total; n != 0 {
		t.Errorf("%d are left in the limits", n)
	}
}
