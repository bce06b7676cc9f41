// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"sluice/stats"
)

// quietBytes in a second is when a direction that userspace took over goes
// back to the kernel.
const quietBytes = 64 << 10

// sweep looks at the sessions in the map once a second: idle ones end, a lost
// announcement is found, a quiet direction goes back to the kernel.
func (l *loop) sweep() {
	l.sessions.each(func(s *session) {
		if s.state != stateSplice {
			return
		}
		if idle := int64(s.set.Config.IdleTimeout); idle > 0 && l.now-s.lastActive() >= idle {
			s.finish(200, stats.IdleTimeout)
			return
		}
		k := s.kern
		for i := range 2 {
			if s.broken(i) {
				return
			}
			passed := k.half[i].Passed()
			d := &k.dir[i]
			switch {
			case !d.armed && passed != k.half[i].Forwarded():
				s.takeOver(i)
			case d.armed && !d.fin && passed-d.seen < quietBytes && s.handBack(i):
			}
			d.seen = passed
		}
	})
}

// handBack lets the kernel redirect direction i again.
func (s *session) handBack(i int) bool {
	k, d := s.kern, &s.kern.dir[i]
	src := s.ends()[i]
	h := k.half[i]
	if !d.clear || src.other().held != nil || h.Passed() != h.Forwarded() {
		return false
	}
	d.armed, d.clear = false, false
	src.readable = false
	s.rearm(i)
	h.SetHold(false)
	if h.Passed() != h.Forwarded() {
		s.takeOver(i) // it passed some more just before
		return false
	}
	return true
}

// lastActive is when the last byte moved, whoever moved it.
func (s *session) lastActive() int64 {
	last := s.last
	if s.kern != nil && s.kern.in {
		last = max(last, int64(s.kern.half[0].LastActive()), int64(s.kern.half[1].LastActive()))
	}
	return last
}

// kernelBytes is how many bytes from this end the kernel has moved and the
// end's own counts don't have yet.
func (s *session) kernelBytes(e *end) uint64 {
	if s.kern == nil || !s.kern.in {
		return 0
	}
	if e == &s.cli {
		return s.kern.half[0].Redirected()
	}
	return s.kern.half[1].Redirected()
}

// leaveMap brings the kernel's counts into the session's own, and gives the
// flow back. The sockets leave the map by being closed, which comes next.
func (s *session) leaveMap() {
	k := s.kern
	if k == nil || !k.in {
		return
	}
	l := s.loop
	var redirected, sent [2]uint64
	for i, src := range s.ends() {
		redirected[i] = k.half[i].Redirected()
		sent[i] = redirected[i]
		if dst := src.other(); !dst.finished {
			// Cut short: what has not entered the socket was never sent.
			own := dst.out - k.dir[i].outAt
			if w, ok := entered(dst.fd); ok {
				sent[i] = min(sent[i], max(w-k.dir[i].base, own)-own)
			}
		}
	}
	for i, src := range s.ends() {
		src.in += redirected[i] + (k.half[i].Passed() - k.dir[i].read)
		src.other().out += sent[i]
		k.spliced += sent[i]
	}
	if s.first == 0 && s.up.in > 0 {
		s.first = l.now
	}
	k.in = false
	l.spliced--
	l.e.flows[k.flow].Store(nil)
	l.e.splice.Remove(k.flow)
	l.e.splice.Free(k.flow)
}
