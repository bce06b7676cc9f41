// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"golang.org/x/sys/unix"
)

// delivery is a session's way from its first end of stream to its end, where the
// listener has half_close off.
type delivery struct {
	src     *end // whose end of stream it was
	lookAt  int64
	backoff int64
}

// beginDelivery is called when the first end of stream has been passed on: nothing
// more is taken from the other side, and the session ends once that side has
// acknowledged all that came before.
func (s *pair) beginDelivery(src *end) {
	s.delivery = &delivery{src: src}
	if s.state == stateMoved { // relay just doesn't read
		s.mover.stop(src.other())
		s.awaitDelivery()
	}
}

// awaitDelivery ends the session once both sides have what was taken for them.
// Nothing tells of an acknowledgement, so it is looked for. A close before it
// would be answered with a reset by our kernel if the other side went on
// talking, and the reset would take with it what is not yet delivered.
func (s *pair) awaitDelivery() {
	g := s.delivery
	dst := g.src.other()
	var ti unix.TCPInfo
	isTCP := tcpInfo(dst.fd, &ti)
	switch {
	case isTCP && ti.State == unix.BPF_TCP_CLOSE:
		if errno := rawSocketError(dst.fd); errno != 0 {
			dst.silent = gaveUp(errno)
			s.cut(s.resetBy(dst))
			return
		}
	case isTCP && outq(dst.fd) > 0:
		s.lookLater()
		return
	}
	if !s.returned() {
		s.lookLater()
		return
	}
	s.finish(200, s.reason)
}

// returned says whether who has ended its stream has got what was taken for it
// before, or will never.
func (s *pair) returned() bool {
	src := s.delivery.src
	if src.held != nil && !src.broken {
		if !src.full {
			s.flushHeld(src)
		}
		if src.held != nil && !src.broken {
			return false
		}
	}
	return src.broken || s.mover == nil || s.mover.arrived(src)
}

func (s *pair) lookLater() {
	g := s.delivery
	g.backoff = min(max(2*g.backoff, minBackoff), stuckBackoff)
	g.lookAt = s.loop.now + g.backoff
	at := g.lookAt
	if s.state == stateRelay {
		at = s.due()
	}
	s.loop.timers.set(s, at)
}
