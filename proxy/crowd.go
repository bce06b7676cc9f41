// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"slices"
	"sync/atomic"
	"time"

	"sluice/session"
)

// A client that begins its next session when the last one has ended must find
// the place of that one free. The end may still lie in the queue of a loop, not
// always the one that accepts the next connection. So before a session is
// refused for a limit its loop asks all loops to handle what has arrived for
// them, and looks again.

// question asks every loop to handle the events that lie in its epoll instance
// by now. It is answered on the loop that asks.
type question struct {
	from   *loop
	askers []*pair
	open   atomic.Int32 // loops that haven't answered
	ending atomic.Bool  // some session has ended, and what it still holds is under way; or is about to
}

const (
	// endingPause is how long a loop waits before it asks again about sessions
	// whose last bytes are under way, and longPause the same once it has asked
	// manyLooks times: who is let in then waits for a busy machine. All looks
	// together take some two seconds.
	endingPause = time.Millisecond
	longPause   = 10 * time.Millisecond
	manyLooks   = 50
)

// awaitEnds has the session chosen for again once every end that has arrived by
// now has been handled.
func (s *pair) awaitEnds(ending bool) {
	l := s.loop
	s.crowded = true
	if s.deadline = 0; ending {
		pause := endingPause
		if s.Looks() >= manyLooks {
			pause = longPause
		}
		l.timers.set(s, l.now+int64(pause))
		return
	}
	l.askers = append(l.askers, s)
	l.ask()
}

// ask puts the question for all sessions that wait for an answer. One question
// of a loop is open at a time: whoever comes meanwhile waits for the next, so
// that a crowd costs no more than its loops can take.
func (l *loop) ask() {
	if l.asking || len(l.askers) == 0 {
		return
	}
	l.asking = true
	q := &question{from: l, askers: l.askers}
	l.askers = nil
	q.open.Store(int32(len(l.e.loops)))
	for _, o := range l.e.loops {
		o.post(func() { o.asked = append(o.asked, q) })
	}
}

// answer is called after each round of events, of which the last wait gave n.
// A question that came in an earlier round is answered if that was less than a
// full batch: the wait then gave all there was, as it fetches events in the
// order in which they came (ep_send_events in fs/eventpoll.c). More than what
// is registered can't have been in front of it.
func (l *loop) answer(n int) {
	if len(l.due) > 0 {
		l.dueRounds++
		if n >= 0 && n < eventBatch || l.dueRounds > 1+len(l.registrations)/eventBatch {
			l.seeEnds()
			ending := l.someEnding()
			for _, q := range l.due {
				if ending {
					q.ending.Store(true)
				}
				if q.open.Add(-1) == 0 {
					q.from.post(q.answered)
				}
			}
			l.due = nil
		}
	}
	if len(l.due) == 0 && len(l.asked) > 0 {
		l.due, l.asked, l.dueRounds = l.asked, nil, 0
	}
}

// answered has those who asked look again.
func (q *question) answered() {
	l := q.from
	ending := q.ending.Load()
	for _, s := range q.askers {
		if s.state == stateEnded {
			continue
		}
		s.crowded = false
		if v := s.Again(s, ending, l.now); v == session.Crowded {
			s.awaitEnds(ending)
		} else {
			s.obey(v)
		}
	}
	l.asking = false
	l.ask()
}

// partingTime is how long a session whose client has sent its end of stream
// counts as ending: the client may have closed, for which its backend closes
// too, and a client that closes first has no other end to wait for.
const partingTime = 50 * time.Millisecond

// parting is a session whose client's end of stream has been passed on.
type parting struct {
	s  *pair
	at int64
}

// noteParting notes that the client's end of stream has been passed on, and the
// backend's hasn't come.
func (s *pair) noteParting() {
	l := s.loop
	if len(l.parting) >= 64 && len(l.parting)&(len(l.parting)-1) == 0 {
		l.pruneParting() // nobody has asked for long
	}
	l.parting = append(l.parting, parting{s, l.now})
}

// pruneParting forgets those that have ended, or haven't for long.
func (l *loop) pruneParting() {
	l.parting = slices.DeleteFunc(l.parting, func(p parting) bool {
		return p.s.state == stateEnded || l.now-p.at >= int64(partingTime)
	})
}

// someEnding says whether a session of the loop has ended, as its ends see it,
// but is still passing on what came before, or seems to be about to end.
func (l *loop) someEnding() bool {
	if l.pruneParting(); l.ending > 0 || len(l.parting) > 0 {
		return true
	}
	for _, s := range l.hot {
		if s.cli.rdhup && s.up.rdhup {
			return true
		}
	}
	return false
}

// noteEnding counts a session with a mover as ending once it is. finish takes it
// off.
func (s *pair) noteEnding() {
	if s.ending || s.state != stateMoved {
		return
	}
	if s.ending = s.mover.ending(); s.ending {
		s.loop.ending++
	}
}
