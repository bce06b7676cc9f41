// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"time"

	"golang.org/x/sys/unix"
)

// A stream in bulk never stops by itself, so there is no moment at which nothing of
// it is under way, and its packets stay the sockets'. One is made: the source's window
// is narrowed, and what fills it is left where it lies. The source then waits. What
// lies there is passed on while it still lies there, and only once the target has
// acknowledged it is it taken away: with that the window opens, and the packet
// that this brings finds everything quiet (docs/offload.md).
const (
	// quietAfter is how long a session that is armed is left to find a moment itself.
	quietAfter = int64(200 * time.Millisecond)
	// quietLook is how often a session that has none is looked at.
	quietLook = int64(300 * time.Millisecond)
	// quietStep is how often one is looked at while a moment is made.
	quietStep = int64(time.Millisecond)
	// quietBulk is how much an end sends between two looks that never stops.
	quietBulk = 128 << 10
	// quietWindow is what the source may send at that time.
	quietWindow = 64 << 10
	// quietTime bounds each step: what takes longer has another reason.
	quietTime = int64(time.Second)
)

// quietStage is how far the making of a moment has got.
type quietStage uint8

const (
	notQuiet  quietStage = iota // left to itself
	narrowing                   // the window shrinks as it is used
	filling                     // nothing is read
	handing                     // what lies in the socket is written to the target
	awaiting                    // its acknowledgement
	opened                      // taken away; the next packet decides
)

// quietMaker makes a moment for one session.
type quietMaker struct {
	stage quietStage
	src   *end
	at    int64     // of the next look
	since int64     // of the stage
	was   [2]uint64 // bytes from each end at the last look
	start uint64    // from the source when its window was narrowed
	wide  uint64    // the window then
	lies  uint64    // bytes in the source's socket
	still uint8     // looks that found as many
	buf   []byte
	given int // of them, to the target
}

// seek has a session looked after until it is cut.
func (l *loop) seek(m *forwarder) {
	m.quiet.at = l.now + quietAfter
	l.seeking = append(l.seeking, m)
	l.lookAgain(quietAfter)
}

// seekQuiet is called when a look at one of them may be due.
func (l *loop) seekQuiet() {
	kept := l.seeking[:0]
	for _, m := range l.seeking {
		q := &m.quiet
		if m.s.fwd != m || m.s.mover != nil || m.s.state != stateRelay {
			m.dropQuiet()
			continue
		}
		if q.at <= l.now {
			q.at = l.now + m.makeQuiet()
			if m.s.fwd != m || m.s.state != stateRelay {
				m.dropQuiet()
				continue
			}
		}
		l.lookAgain(q.at - l.now)
		kept = append(kept, m)
	}
	clear(l.seeking[len(kept):])
	if l.seeking = kept; len(kept) == 0 {
		l.seeking = nil
	}
}

// makeQuiet does the next step, and says when to look again.
func (m *forwarder) makeQuiet() int64 {
	q, s := &m.quiet, m.s
	if q.stage != notQuiet && (s.loop.now-q.since > quietTime || q.src.broken || q.src.failed || q.src.other().broken || s.delivery != nil) {
		m.giveUpQuiet()
		return quietLook
	}
	switch q.stage {
	case notQuiet:
		return m.narrow()
	case narrowing:
		m.awaitNarrow()
	case filling:
		return m.awaitFull()
	case handing:
		m.passOn()
	case awaiting:
		m.awaitTaken()
	case opened:
		if s.loop.now-q.since >= quietLook {
			m.giveUpQuiet() // the packet didn't find it so
		}
		return quietLook
	}
	return quietStep
}

func (q *quietMaker) enter(stage quietStage, now int64) { q.stage, q.since = stage, now }

// narrow begins, if an end sends in bulk.
func (m *forwarder) narrow() int64 {
	q, s := &m.quiet, m.s
	var most uint64
	for i, e := range s.ends() {
		if n := e.in - q.was[i]; q.was[i] != 0 && n > most {
			most, q.src = n, e
		}
		q.was[i] = max(e.in, 1)
	}
	if most < quietBulk || q.src.halting || q.src.eof || q.src.rdhup {
		return quietLook
	}
	var ti unix.TCPInfo
	if !tcpInfo(q.src.fd, &ti) {
		return quietLook
	}
	q.start, q.wide = q.src.in, uint64(ti.Rcv_wnd)
	if q.wide == 0 { // not told before 6.2
		q.wide = 8 << 20
	}
	rawSetInt(q.src.fd, unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, quietWindow)
	q.enter(narrowing, s.loop.now)
	return quietStep
}

// awaitNarrow stops reading once the source can't send more than fits a buffer.
func (m *forwarder) awaitNarrow() {
	q := &m.quiet
	var ti unix.TCPInfo
	tcpInfo(q.src.fd, &ti)
	if q.src.in-q.start >= q.wide || ti.Rcv_wnd != 0 && ti.Rcv_wnd <= chunk {
		q.src.hushed = true
		q.lies, q.still = 0, 0
		q.enter(filling, m.s.loop.now)
	}
}

// awaitFull waits until nothing comes any more for three round trips.
func (m *forwarder) awaitFull() int64 {
	q, s := &m.quiet, m.s
	var ti unix.TCPInfo
	tcpInfo(q.src.fd, &ti)
	step := max(2*quietStep, int64(ti.Rtt)*int64(time.Microsecond))
	lies := inq(q.src.fd)
	if lies != q.lies || q.src.other().held != nil {
		q.lies, q.still = lies, 0
		return step
	}
	if q.still++; q.still < 3 {
		return step
	}
	if lies == 0 || lies > chunk {
		m.giveUpQuiet()
		return quietLook
	}
	q.buf, q.given = s.loop.getBuffer(chunk), 0
	got, _ := rawRecv(q.src.fd, q.buf[:lies], unix.MSG_PEEK)
	if got != int(lies) {
		m.giveUpQuiet()
		return quietLook
	}
	q.enter(handing, s.loop.now)
	m.passOn()
	return quietStep
}

// passOn writes what lies in the source's socket to the target.
func (m *forwarder) passOn() {
	q, s := &m.quiet, m.s
	dst := q.src.other()
	n, errno := rawSend(dst.fd, q.buf[q.given:q.lies])
	if n < 0 {
		if errno != unix.EAGAIN && errno != unix.EINTR && errno != unix.ENOBUFS && errno != unix.ENOMEM {
			s.deadEnd(dst, errno)
			m.giveUpQuiet()
		}
		return
	}
	q.given += n
	dst.out += uint64(n)
	s.gotBytes(q.src, n)
	if q.given == int(q.lies) {
		q.enter(awaiting, s.loop.now)
		m.awaitTaken()
	}
}

// awaitTaken takes the bytes away once the target has acknowledged them.
func (m *forwarder) awaitTaken() {
	q, s := &m.quiet, m.s
	if outq(q.src.other().fd) > 0 {
		return
	}
	if inq(q.src.fd) != q.lies {
		m.giveUpQuiet() // it had room for more
		return
	}
	m.takeAway()
	q.enter(opened, s.loop.now)
}

// takeAway takes what the target was given out of the source's socket.
func (m *forwarder) takeAway() {
	q := &m.quiet
	if q.given > 0 {
		rawRecv(q.src.fd, q.buf[:q.given], unix.MSG_TRUNC)
		q.given = 0
	}
	m.dropQuiet()
	if q.src.hushed {
		q.src.hushed = false
		q.src.readable = true
		m.s.makeHot()
	}
}

// endQuiet leaves nothing of it behind.
func (m *forwarder) endQuiet() {
	if m.quiet.stage != notQuiet {
		m.giveUpQuiet()
	}
}

// giveUpQuiet leaves the session to itself again.
func (m *forwarder) giveUpQuiet() {
	q := &m.quiet
	m.takeAway()
	rawSetInt(q.src.fd, unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, 1<<30)
	q.was = [2]uint64{}
	q.enter(notQuiet, m.s.loop.now)
}

// dropQuiet gives the buffer back.
func (m *forwarder) dropQuiet() {
	if b := m.quiet.buf; b != nil {
		m.s.loop.putBuffer(b[:cap(b)])
		m.quiet.buf = nil
	}
}
