// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"cmp"
	"slices"
)

// soonEntry is a session with a mover whose time may be over before the next sweep.
type soonEntry struct {
	at int64 // monotonic, ns
	s  *pair
}

// judge ends a session with a mover if its time is over. True if it has. Nothing tells
// of the bytes that a mover moves, so when that is can only be looked up: at each sweep,
// and where it would come before the next one, then.
func (l *loop) judge(s *pair) (ended bool) {
	at, ended := s.overdue()
	if !ended {
		l.expect(s, at)
	}
	return ended
}

// expect has a session looked at again at that time, if the next sweep comes later.
func (l *loop) expect(s *pair, at int64) {
	if at == 0 || at >= l.sweepAt {
		return
	}
	n := len(l.soon)
	l.soon = append(l.soon, soonEntry{at, s})
	if l.sweeping {
		return // which puts all in order
	}
	i, _ := slices.BinarySearchFunc(l.soon[:n], at, func(e soonEntry, at int64) int { return cmp.Compare(e.at, at) })
	copy(l.soon[i+1:], l.soon[i:n])
	l.soon[i] = soonEntry{at, s}
}

// sortSoon puts in order what a sweep has added.
func (l *loop) sortSoon() {
	slices.SortFunc(l.soon, func(a, b soonEntry) int { return cmp.Compare(a.at, b.at) })
}

// runSoon looks again at the sessions whose time has come, unless bytes have moved since.
func (l *loop) runSoon() {
	for len(l.soon) > 0 && l.soon[0].at <= l.now {
		s := l.soon[0].s
		l.soon[0] = soonEntry{}
		if l.soon = l.soon[1:]; len(l.soon) == 0 {
			l.soon = nil
		}
		if s.state == stateMoved {
			l.judge(s)
		}
	}
}
