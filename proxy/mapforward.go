// SPDX-License-Identifier: Apache-2.0

package proxy

import "golang.org/x/sys/unix"

// step works on one direction; true if it must look again without an event.
func (m *splicer) step(d *direction) (again bool) {
	if !d.phase.ours() && !d.phase.ending() || m.broken(d) {
		return false
	}
	if d.phase.outside() {
		d.src.readable = d.src.readable || d.phase.ending()
		if _, atEnd := m.forward(d); atEnd {
			m.passLastFIN(d)
		}
		return false
	}
	if d.phase.ending() {
		// Runs the verdict on whatever still lies in the receive queue.
		var b [1]byte
		if _, errno := rawRecv(d.src.fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT); lostBy(errno) {
			// The look has taken the error, which the next read wouldn't show any more.
			d.src.silent = gaveUp(errno)
			m.loses(d.src)
			return true
		}
		if d.waits() {
			m.takeOver(d)
		}
	}
	if d.phase == draining || d.phase == lastDraining || d.phase == lastRedirecting {
		if !m.drained(d) {
			return !m.stalled(d)
		}
		d.change(bytesDrained)
	}
	if d.phase.takenOver() {
		d.src.readable = d.src.readable || d.phase.ending()
		if done, _ := m.forward(d); !done {
			return false
		}
	}
	return d.phase.ending() && !m.passMappedFIN(d)
}

// forward relays what the program passed, or all of a source outside the map. done:
// there is no more at present; else the session has ended, or the target takes no
// more (its EPOLLOUT tells). atEnd: and the source has ended.
func (m *splicer) forward(d *direction) (done, atEnd bool) {
	s, src, dst := m.s, d.src, d.dst
	for n := 0; ; n++ {
		if dst.held != nil && !m.flush(d) {
			return false, false
		}
		if !src.readable {
			return true, atEnd
		}
		if n == 4*burst {
			s.loop.post(func() {
				if !m.gone() {
					m.advance()
				}
			})
			return false, false
		}
		got, errno := rawRecv(src.fd, s.loop.buf, 0)
		switch {
		case got > 0:
			s.gotBytes(src, got)
			if !d.phase.outside() {
				d.read += uint64(got)
			}
			if !s.give(dst, s.loop.buf[:got]) {
				s.cut(s.resetBy(dst))
				return false, false
			}
			m.forwarded(d)
			s.mindWindow(src, got)
		case got == 0, errno == unix.EAGAIN:
			src.readable = false
			atEnd = got == 0
		case errno == unix.EINTR:
		default:
			src.silent = gaveUp(errno)
			s.cut(s.resetBy(src))
			return false, false
		}
	}
}

// flush writes what the target hasn't taken yet; false while some is left, or if the
// session has ended.
func (m *splicer) flush(d *direction) bool {
	ok := m.s.flushHeld(d.dst)
	m.forwarded(d)
	switch {
	case d.dst.broken:
		m.s.cut(m.s.resetBy(d.dst))
		return false
	case !ok:
		m.rearm(m.back(d))
	}
	return ok
}

// forwarded tells the program how many of the passed bytes the target has: only
// once all are there may it redirect again.
func (m *splicer) forwarded(d *direction) {
	if !d.phase.outside() {
		d.shared.SetForwarded(d.read - uint64(len(d.dst.held)))
	}
}

// passMappedFIN passes the source's FIN on, if every byte before it is in the
// target's socket: passed bytes all forwarded, redirected and passed ones
// together what the source received, and all of it entered the target.
func (m *splicer) passMappedFIN(d *direction) bool {
	passed := d.shared.Passed()
	if passed != d.read || d.dst.held != nil {
		m.takeOver(d)
		return false
	}
	var ti unix.TCPInfo
	if !tcpInfo(d.src.fd, &ti) {
		return false
	}
	if d.shared.Redirected()+passed+d.taken+1 < ti.Bytes_received || !m.drained(d) {
		return false
	}
	m.passLastFIN(d)
	return true
}

// passLastFIN passes the source's FIN on; all before it has been.
func (m *splicer) passLastFIN(d *direction) {
	d.change(finPassed)
	d.src.eof = true
	if !m.s.passFIN(d.src, d.dst) {
		m.s.cut(m.s.resetBy(d.dst))
	}
}

// lostBy says whether what a read on a non-blocking socket failed with is the loss
// of its connection.
func lostBy(errno unix.Errno) bool {
	return errno != 0 && errno != unix.EAGAIN && errno != unix.EINTR
}
