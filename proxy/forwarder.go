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
	// settleTime is how long after the cut both sockets are let go: what was still
	// on its way to them has arrived, and no timer of theirs has run out.
	settleTime = int64(10 * time.Millisecond)
	// parted is how long a flow of which both ends of stream have been seen may be
	// silent before it has ended without their acknowledgement.
	parted = int64(60 * time.Second)
	// shutTime is what a session has from its first end of stream to its end, where
	// half_close is off.
	shutTime = int64(time.Second)
)

// forwarder is the mover of a session whose packets the kernel forwards. The session
// has no sockets: all that is known of it is in the flow's record.
type forwarder struct {
	s               *pair
	o               *offloading
	slot            uint32
	rec             *loader.Flow
	client, backend loader.Leg
	armedAt         int64

	live      bool // its record counts: from the cut to the session's end
	letGo     bool // the sockets are closed
	aborted   bool // both ends were reset by us
	forwarded uint64
	shutAt    int64 // when the session ends for want of half_close; 0: not
	info      peerInfo
	watch     peerWatch
	rest      rest
	quiet     quietMaker
}

// peerInfo is what the sockets knew of their connections when they were let go.
type peerInfo struct {
	clientRTT, upstreamRTT time.Duration
	upstreamRetrans        int64
}

// takeOver is called once the flow has been cut: the session's bytes are no longer
// the loop's.
func (m *forwarder) takeOver() {
	s := m.s
	if m.live || s.mover != nil || s.state == stateEnded {
		return
	}
	l := s.loop
	l.armed--
	m.live = true
	s.mover, s.state = m, stateMoved
	s.deadline = 0
	s.unwatch()
	l.startMoving(s)
	for _, e := range s.ends() { // nothing happens to them any more
		l.deregister(e.fd, e.handle)
		e.handle = -1
		// Closed, by us or by a kill, it is gone without a word, and the stack answers
		// what still comes with a reset. It would say an end of stream with numbers that
		// are old by now, and hold its address until it gives up on that.
		rawSetInt(e.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1)
	}
	l.settling = append(l.settling, m)
	l.lookAgain(settleTime)
	if m.rec.Ended() {
		m.ended()
	}
}

// settle lets the sockets of flows go that were cut long enough ago.
func (l *loop) settle() {
	for len(l.settling) > 0 {
		m := l.settling[0]
		if wait := m.rec.CutAt() + settleTime - l.now; m.live && wait > 0 {
			l.lookAgain(wait)
			return
		}
		l.settling = l.settling[1:]
		if m.live {
			m.dropSockets()
		}
	}
	l.settling = nil
}

// dropSockets closes both sockets without a word to anybody. One that has taken
// bytes since the cut took them from the other side for ever.
func (m *forwarder) dropSockets() {
	if m.letGo {
		return
	}
	s := m.s
	whole, err := m.o.Forward.Verify(m.slot, m.client, m.backend)
	if m.info.upstreamRetrans = -1; s.Settings.TCPInfo {
		m.info = s.peerInfo()
	}
	m.letGo = true
	for _, e := range s.ends() {
		s.closeEnd(e)
	}
	s.loop.e.giveFDs()
	s.fdsGiven = true
	if !whole || err != nil {
		s.loop.e.log.Warn().Err(err).Str("listener", s.Settings.Config.Name).Stringer("client", s.Client).
			Msg("a socket took bytes after its session was handed over: the session is reset")
		s.Fell(session.Order)
		s.cut(accesslog.Internal)
		return
	}
	m.keep()
}

func (m *forwarder) ready(*end, uint32) {}

func (m *forwarder) path() session.Path { return session.Offload }

func (m *forwarder) total() uint64 {
	up, down := m.moved()
	return m.forwarded + up + down
}

func (m *forwarder) moved() (up, down uint64) {
	if !m.live {
		return 0, 0
	}
	return m.rec.Delivered(loader.ClientSide), m.rec.Delivered(loader.BackendSide)
}

func (m *forwarder) lastActive() int64 {
	if !m.live {
		return 0
	}
	return m.rec.LastData()
}

// ending says that both ends of stream, or a reset, have been seen.
func (m *forwarder) ending() bool {
	client, _ := m.rec.Fin(loader.ClientSide)
	backend, _ := m.rec.Fin(loader.BackendSide)
	_, reset := m.rec.WasReset()
	return client && backend || reset
}

func (m *forwarder) stop(*end) {}

// arrived is never the case: who ends a forwarded session resets both ends.
func (m *forwarder) arrived(*end) bool { return false }

// expired is told that the session's time is over where half_close is off.
func (m *forwarder) expired() {
	if m.shutAt != 0 && m.s.loop.now >= m.shutAt && m.live {
		m.s.cut(m.reason())
	}
}

// sweep finds an end whose event was lost, and one that nothing tells of.
func (m *forwarder) sweep() {
	s, now := m.s, m.s.loop.now
	if m.o.fault.noLook {
		return
	}
	if m.rec.Ended() {
		m.ended()
		return
	}
	s.noteEnding()
	if m.ending() && now-m.lastSeen() >= parted {
		s.finish(200, m.reason())
		return
	}
	if !s.Settings.Config.HalfClose && m.shutAt == 0 {
		if side, ok := m.rec.FirstFin(); ok {
			if _, acknowledged := m.rec.Fin(side); acknowledged {
				m.shutAt = now + shutTime
				s.loop.timers.set(s, m.shutAt)
			}
		}
	}
	m.watchPeers(now)
}

func (m *forwarder) lastSeen() int64 {
	return max(m.rec.CutAt(), m.rec.LastSeen(loader.ClientSide), m.rec.LastSeen(loader.BackendSide))
}

// ended is called once the flow has ended by its own.
func (m *forwarder) ended() {
	if m.live {
		m.s.finish(200, m.reason())
	}
}

// reason is why the flow ends, by what its ends have sent.
func (m *forwarder) reason() accesslog.EndReason {
	if side, ok := m.rec.WasReset(); ok {
		if side == loader.ClientSide {
			return accesslog.ClientReset
		}
		return accesslog.BackendReset
	}
	if side, ok := m.rec.FirstFin(); ok && side == loader.BackendSide {
		return accesslog.BackendClosed
	}
	return accesslog.ClientClosed
}

// abort resets both ends. What they still send is answered likewise for a while.
func (m *forwarder) abort() {
	if !m.live || m.aborted || m.rec.Ended() {
		return
	}
	m.aborted = true
	m.rec.Reset()
	raw := m.o.Raw
	for side := range 2 {
		p := m.rec.ResetPoint(side)
		err := raw.Reset(p.From, p.To, p.Acked)
		if p.Top != p.Acked && err == nil {
			err = raw.Reset(p.From, p.To, p.Top)
		}
		if err != nil {
			m.s.loop.e.log.Debug().Err(err).Stringer("to", p.To).Msg("a reset could not be sent: what that end sends is answered")
		}
	}
}

// answer resets an end that has sent something after abort.
func (m *forwarder) answer() {
	for side := range 2 {
		if p := m.rec.ResetPoint(side); p.Asked != 0 {
			_ = m.o.Raw.Reset(p.From, p.To, p.Asked) // it asks again
		}
	}
}

// leave brings what was forwarded into the ends' counts. The record goes on sending
// late packets on until closed gives it back.
func (m *forwarder) leave() {
	if !m.live {
		return
	}
	m.dropSockets()
	if !m.live {
		return // the sockets' last word has ended the session
	}
	s := m.s
	up, down := m.moved()
	if first := m.rec.FirstByte(); s.First == 0 && first != 0 {
		s.First = first
	}
	s.last = max(s.last, m.rec.LastData())
	s.cli.in, s.up.out = s.cli.in+up, s.up.out+up
	s.up.in, s.cli.out = s.up.in+down, s.cli.out+down
	m.forwarded = up + down
	m.live = false
	s.loop.moving--
}

// closed has the record stay for a while. The session's line is written.
func (m *forwarder) closed() {
	m.o.Forward.Forget(m.slot)
	m.s.loop.linger(m)
}

// endedAt is when the last packet of the session came.
func (m *forwarder) endedAt(now int64) int64 { return min(now, m.lastSeen()) }
