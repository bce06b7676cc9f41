// SPDX-License-Identifier: Apache-2.0

package proxy

// quietBytes in a second is when a direction that userspace took over goes
// back to the kernel.
const quietBytes = 64 << 10

// sweep finds a lost announcement, gives a quiet direction back to the kernel, and
// sets going what stays in the kernel's queues.
func (m *splicer) sweep() {
	for i := range m.dir {
		d := &m.dir[i]
		if m.broken(d) {
			return
		}
		passed := d.shared.Passed()
		switch {
		case d.waits() && !d.phase.takenOver():
			m.takeOver(d)
		case d.phase == passing && passed-d.seen < quietBytes:
			m.handBack(d)
		case d.phase == redirecting && m.stuck(d):
			return
		}
		d.seen = passed
	}
}

// stuck looks whether what the kernel has redirected in a direction has entered the
// target, once the source is quiet and unless it was seen to. True if the session
// has ended over it.
func (m *splicer) stuck(d *direction) bool {
	redirected := d.shared.Redirected()
	if redirected == d.settled || m.s.loop.now-int64(d.shared.LastActive()) < stuckQueue {
		return false
	}
	if m.drained(d) {
		d.settled = redirected
		return false
	}
	return m.stalled(d)
}

// handBack lets the kernel redirect a direction again, if userspace holds nothing
// of it.
func (m *splicer) handBack(d *direction) {
	if d.dst.held != nil || d.waits() {
		return
	}
	d.change(handedBack)
	d.src.readable = false
	m.rearm(d)
	d.shared.SetHold(false)
	if d.waits() {
		m.takeOver(d) // it passed some more just before
	}
}
