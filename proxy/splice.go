// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"time"

	"golang.org/x/sys/unix"

	"sluice/accesslog"
	"sluice/loader"
	"sluice/session"
)

const (
	spliceEvents = unix.EPOLLRDHUP | uint32(unix.EPOLLET&0xffffffff)
	passEvents   = spliceEvents | unix.EPOLLIN
	outEvents    = unix.EPOLLOUT

	minBackoff = int64(time.Millisecond)
	maxBackoff = int64(10 * time.Millisecond)
	// stuckBackoff is for a reader that has taken nothing since the last look.
	stuckBackoff = int64(250 * time.Millisecond)
	// lastWords is how long a reset waits for bytes that came before it.
	lastWords = int64(50 * time.Millisecond)
)

// Splice is the loader's view of the sockmap program.
type Splice = *loader.Splice

// splicer is the mover of a session in the map: the kernel moves its bytes, and
// userspace what the kernel passes to it.
type splicer struct {
	s          *pair
	flow       uint32
	live       bool         // in the map now
	dir        [2]direction // from the client, from the backend
	redirected uint64       // bytes the kernel moved, once the session has left the map
	backoff    int64
	lost       *end // the end whose connection broke, if one did
	lostAt     int64
}

// direction is one direction's state in userspace. What the kernel has to say of it
// is in shared.
type direction struct {
	src, dst *end
	shared   *loader.Direction
	taken    uint64 // what had been taken out of the source's socket before the map, by TCP's count
	outAt    uint64 // target's bytes written before the map
	base     uint64 // target's acknowledged plus queued bytes at that time
	read     uint64 // passed bytes that have been read
	seen     uint64 // passed bytes at the last sweep
	settled  uint64 // redirected bytes when a sweep last found them all in the target's socket
	written  uint64 // what has entered the target since, by the best look
	movedAt  int64  // when a look last showed more
	phase    phase
}

func (d *direction) change(c change) { d.phase = d.phase.after(c) }

// waits says whether the program has passed bytes that the target doesn't have.
func (d *direction) waits() bool { return d.shared.Passed() != d.shared.Forwarded() }

// from is the direction of the bytes that come from e.
func (m *splicer) from(e *end) *direction {
	if e == m.dir[0].src {
		return &m.dir[0]
	}
	return &m.dir[1]
}

// back is the other direction.
func (m *splicer) back(d *direction) *direction { return m.from(d.dst) }

// gone says whether the session has ended meanwhile.
func (m *splicer) gone() bool { return m.s.state != stateMoved }

// drained says whether every byte of a direction up to now, redirected or written
// by us, has entered the target's socket.
func (m *splicer) drained(d *direction) bool {
	w, ok := entered(d.dst.fd)
	if !ok {
		return false
	}
	if d.progress(w) {
		d.movedAt = m.s.loop.now
		m.backoff = min(m.backoff, maxBackoff)
	}
	return d.written >= d.shared.Redirected()+(d.dst.out-d.outAt)
}

// announcements is the ring buffer by which the program says that it began to
// pass bytes to userspace.
type announcements struct{ e *Engine }

func (a announcements) ready(l *loop, _ uint32) {
	a.e.splice.Drain(func(index uint32) {
		flow, side := index/2, index%2
		if int(flow) >= len(a.e.flows) {
			return
		}
		m := a.e.flows[flow].Load()
		switch {
		case m == nil:
		case m.s.loop == l:
			m.announced(&m.dir[side])
		default:
			m.s.loop.post(func() { m.announced(&m.dir[side]) })
		}
	})
}

// announced is told of bytes passed in a direction. They may have been moved
// since, and the direction handed back: taken over while the program redirects,
// its run of this moment could redirect bytes that drained doesn't know of.
func (m *splicer) announced(d *direction) {
	if !m.gone() && m.s.delivery == nil && !m.broken(d) && d.waits() {
		m.takeOver(d)
	}
}

// broken ends a session of which the kernel has lost bytes in a direction.
func (m *splicer) broken(d *direction) bool {
	if d.shared.Broken() {
		m.lose()
		return true
	}
	return false
}

// lose ends a session of which the kernel has lost bytes.
func (m *splicer) lose() {
	s := m.s
	s.Fell(session.MapError)
	s.loop.e.log.Debug().Str("listener", s.Settings.Config.Name).Stringer("client", s.Client).Msg("the kernel lost bytes of a session: it is reset")
	s.cut(accesslog.Internal)
}

// takeOver has userspace move a direction for a while; only when it has been
// passed bytes, so that the program doesn't redirect meanwhile. It runs
// before the bytes it passes are queued: so EPOLLIN is armed, not just read.
func (m *splicer) takeOver(d *direction) {
	if d.phase.takenOver() {
		return
	}
	d.change(bytesPassed)
	d.movedAt = m.s.loop.now
	d.shared.SetHold(true)
	makeRoom(d.src.fd, d.shared.Mark())
	makeRoom(d.dst.fd, d.shared.Mark())
	m.rearm(d)
}

// rearm sets what the source of a direction is watched for.
func (m *splicer) rearm(d *direction) {
	events := spliceEvents
	if d.phase.ours() {
		events = passEvents
	}
	if d.src.full || m.back(d).phase.ours() {
		events |= outEvents
	}
	m.s.loop.modify(d.src.fd, d.src.handle, events)
}

func (m *splicer) ready(e *end, events uint32) {
	if events&unix.EPOLLERR != 0 {
		m.loses(e)
		m.advance()
		return
	}
	if events&(unix.EPOLLRDHUP|unix.EPOLLHUP) != 0 {
		m.from(e).change(finCame)
	}
	if events&unix.EPOLLIN != 0 {
		e.readable = true
	}
	if events&unix.EPOLLOUT != 0 {
		e.full = false
	}
	m.backoff = 0
	m.advance()
}

// loses notes that the connection of this end broke.
func (m *splicer) loses(e *end) {
	if m.lost == nil {
		m.lost, m.lostAt = e, m.s.loop.now
	}
}

func (m *splicer) expired() { m.advance() }

func (m *splicer) ending() bool {
	return m.lost != nil || m.dir[0].phase >= lastRedirecting && m.dir[1].phase >= lastRedirecting
}

// advance moves on what userspace has to do with a session in the map.
func (m *splicer) advance() {
	if m.s.delivery != nil {
		m.s.awaitDelivery()
		return
	}
	if m.lost != nil {
		m.afterLoss()
		return
	}
	wait := false
	for i := range m.dir {
		if m.step(&m.dir[i]) {
			wait = true
		}
		if m.gone() || m.s.delivery != nil {
			return
		}
	}
	if !wait {
		m.s.deadline = 0
		return
	}
	m.backoff = min(max(2*m.backoff, minBackoff), stuckBackoff)
	m.s.loop.timers.set(m.s, m.s.loop.now+m.backoff)
}

// afterLoss resets the pair once what the broken end had sent before has
// reached the other's socket; it doesn't wait long for that.
func (m *splicer) afterLoss() {
	s, d := m.s, m.from(m.lost)
	if d.phase.outside() {
		d.src.readable = true
		if m.forward(d); m.gone() {
			return
		}
	}
	if s.loop.now-m.lostAt >= lastWords || m.drained(d) && d.dst.held == nil {
		s.cut(s.resetBy(m.lost))
		return
	}
	s.loop.timers.set(s, s.loop.now+minBackoff)
}
