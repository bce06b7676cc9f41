// SPDX-License-Identifier: Apache-2.0

package proxy

// sessionList is a loop's live sessions, newest first, linked through the
// sessions themselves.
type sessionList struct{ head *pair }

func (l *sessionList) add(s *pair) {
	s.next = l.head
	if l.head != nil {
		l.head.prev = s
	}
	l.head = s
}

func (l *sessionList) remove(s *pair) {
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		l.head = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	}
	s.next, s.prev = nil, nil
}

// each calls f for all; f may end the session it is given.
func (l *sessionList) each(f func(*pair)) {
	for s := l.head; s != nil; {
		next := s.next
		f(s)
		s = next
	}
}

// newest calls f from the newest on until it says no.
func (l *sessionList) newest(f func(*pair) bool) {
	for s := l.head; s != nil && f(s); s = s.next {
	}
}
