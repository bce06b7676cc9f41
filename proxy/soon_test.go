// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"
	"testing"
	"time"

	"sluice/config"
	"sluice/internal/mono"
	"sluice/session"
)

// clockMover is a mover of which only the times count. Left, it has the session end
// right there.
type clockMover struct {
	mover
	s    *pair
	last int64 // when a byte moved
}

func (m *clockMover) lastActive() int64 { return m.last }

func (m *clockMover) arrived(*end) bool { return true }

func (m *clockMover) abort() {}

func (m *clockMover) sweep() {}

func (m *clockMover) leave() {
	m.s.state = stateEnded
	m.s.loop.moving--
}

// soonRig is a loop that nobody runs, at a time that the test sets.
type soonRig struct {
	t *testing.T
	l *loop
}

func newSoonRig(t *testing.T) *soonRig {
	return &soonRig{t, &loop{e: &Engine{clock: mono.New()}, now: 1000 * int64(time.Second)}}
}

// moved is a session that has begun now, and has a mover.
func (r *soonRig) moved(conf *config.Listener) *clockMover {
	s := &pair{loop: r.l, state: stateMoved, cli: end{fd: -1}, up: end{fd: -1}, last: r.l.now}
	m := &clockMover{s: s, last: r.l.now}
	s.cli.s, s.up.s, s.mover = s, s, m
	s.Begin(session.NewRegistry(session.Options{}), netip.MustParseAddrPort("127.0.0.1:1"), r.l.now)
	s.Settings = &session.Settings{Config: conf}
	r.l.sessions.add(s)
	r.l.startMoving(s)
	return m
}

// runUntil lets time pass as the loop does, from one moment that it waits for to the
// next; each is called after each.
func (r *soonRig) runUntil(at int64, each func()) {
	r.t.Helper()
	for r.l.now < at {
		next := r.l.next()
		if next == 0 || next > at {
			next = at
		}
		if next <= r.l.now {
			r.t.Fatalf("nothing is done of what was due %v ago", time.Duration(r.l.now-next))
		}
		r.l.now = next
		r.l.expire()
		each()
	}
}

// A session with a mover ends when its time is over, not at the sweep after: also one
// that came just after a sweep, and one whose bytes move on.
func TestTimeIsOverBetweenSweeps(t *testing.T) {
	const ms = int64(time.Millisecond)
	for _, c := range []struct {
		name      string
		idle, age time.Duration
		active    int64 // a byte moves that often; 0: none does
		ends      int64 // after the accept
	}{
		{"idle", 1300 * time.Millisecond, 0, 0, 1300 * ms},
		{"idle for less than a sweep", 300 * time.Millisecond, 0, 0, 300 * ms},
		{"old and silent", 0, 2700 * time.Millisecond, 0, 2700 * ms},
		{"twice as old", 0, 1150 * time.Millisecond, 10 * ms, 2300 * ms},
		{"twice as old within one sweep", 0, 350 * time.Millisecond, 10 * ms, 700 * ms},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newSoonRig(t)
			first := r.moved(defaults()) // sweeps have begun, and go on
			conf := defaults()
			conf.IdleTimeout, conf.MaxAge = c.idle, c.age
			r.runUntil(r.l.now+400*ms, func() {})
			begun := r.l.now
			m := r.moved(conf)
			for n := int64(1); m.s.state == stateMoved && n < 1000; n++ {
				r.runUntil(begun+10*ms*n, func() {
					if m.s.state == stateEnded && r.l.now != begun+c.ends {
						t.Fatalf("ended after %v, want %v", time.Duration(r.l.now-begun), time.Duration(c.ends))
					}
				})
				if c.active != 0 {
					m.last = r.l.now
				}
			}
			if m.s.state != stateEnded || first.s.state != stateMoved {
				t.Errorf("the session's state is %v, the other's %v", m.s.state, first.s.state)
			}
			r.l.sessions.remove(m.s)
			r.l.sweep()
			if len(r.l.soon) != 0 {
				t.Errorf("%d sessions are still waited for", len(r.l.soon))
			}
		})
	}
}

// Those that are waited for are looked at in order, whenever they were noted.
func TestSoonIsInOrder(t *testing.T) {
	const ms = int64(time.Millisecond)
	r := newSoonRig(t)
	var all []*clockMover
	var ended []int64
	begun := r.l.now
	for n := range int64(50) {
		conf := defaults()
		conf.IdleTimeout = time.Duration(100+(n*37)%50*40) * time.Millisecond // to beyond two sweeps
		all = append(all, r.moved(conf))
	}
	r.runUntil(begun+3000*ms, func() {
		for _, m := range all {
			if m.s.state == stateEnded && m.s.timer == 0 {
				m.s.timer = -1 // told
				r.l.sessions.remove(m.s)
				if want := begun + int64(m.s.Settings.Config.IdleTimeout); r.l.now != want {
					t.Errorf("one ended after %v, want %v", time.Duration(r.l.now-begun), time.Duration(want-begun))
				}
				ended = append(ended, r.l.now)
			}
		}
	})
	if len(ended) != len(all) {
		t.Errorf("%d of %d ended", len(ended), len(all))
	}
}
