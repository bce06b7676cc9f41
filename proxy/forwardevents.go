// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"time"

	"sluice/loader"
)

// wakeAgain is when to look for events again after one has woken us: the program
// wakes us once in 10 ms at most.
const wakeAgain = int64(11 * time.Millisecond)

// forwardings is the ring buffer by which the program tells of flows.
type forwardings struct{ o *offloading }

func (f forwardings) ready(l *loop, _ uint32) {
	f.o.drain(l)
	l.drainAt = l.now + wakeAgain
}

// drain hands every event to the loop of its session. False: there was none.
func (o *offloading) drain(l *loop) (some bool) {
	o.Forward.Drain(func(kind loader.EventKind, slot uint32) {
		some = true
		if int(slot) >= len(o.flows) {
			return
		}
		m := o.flows[slot].Load()
		switch {
		case m == nil:
		case m.s.loop == l:
			m.happened(kind)
		default:
			m.s.loop.post(func() { m.happened(kind) })
		}
	})
	return some
}

// happened acts on an event of the flow.
func (m *forwarder) happened(kind loader.EventKind) {
	if m.o.flows[m.slot].Load() != m {
		return // the number is another flow's by now
	}
	switch kind {
	case loader.FlowCut:
		m.takeOver()
	case loader.FlowFins:
		m.takeOver()
		m.s.noteEnding()
	case loader.FlowEnded:
		m.takeOver()
		m.ended()
	case loader.FlowAsked:
		if m.aborted {
			m.answer()
		}
	}
}

// lookAgain has the loop look at its forwarded sessions after d at the latest.
func (l *loop) lookAgain(d int64) {
	if at := l.now + d; l.lookAt == 0 || at < l.lookAt {
		l.lookAt = at
	}
}

// look does what is due for forwarded sessions.
func (l *loop) look() {
	if l.drainAt != 0 && l.drainAt <= l.now {
		l.drainAt = 0
		if o := l.e.offload.Load(); o != nil && o.drain(l) {
			l.drainAt = l.now + wakeAgain
		}
	}
	if l.lookAt != 0 && l.lookAt <= l.now {
		l.lookAt = 0
		l.settle()
		l.seekQuiet()
		l.dropLingering(false)
	}
}

// seeEnds finds the forwarded sessions that have ended as their ends see it, without
// waiting to be told. They are looked through only if the program has counted one.
func (l *loop) seeEnds() {
	o := l.e.offload.Load()
	if o == nil || l.moving+l.armed == 0 {
		return
	}
	ends := o.Forward.Ends()
	if ends == l.endsSeen {
		return
	}
	l.endsSeen = ends
	l.sessions.each(func(s *pair) {
		m := s.fwd
		switch {
		case m == nil || !m.rec.Cut():
		case m.rec.Ended():
			m.takeOver()
			m.ended()
		case m.ending():
			m.takeOver()
			s.noteEnding()
		}
	})
}
