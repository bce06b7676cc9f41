// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"time"

	"sluice/accesslog"
	"sluice/internal/sockopt"
)

// probeAfter is how long a flow may be without a packet before its ends are asked
// whether they are there, whatever the file says.
const probeAfter = 2 * time.Hour

// leastDeadPeer is the least time for which bytes of a forwarded session may be without
// an acknowledgement. A living peer may take 200 ms (TCP_DELACK_MAX in
// include/net/tcp.h), and a socket with a shorter TCP_USER_TIMEOUT gives up with its
// second retransmission, 200 and 400 ms after the one before (620 ms at 200 ms, seen
// on 6.18).
const leastDeadPeer = 600 * time.Millisecond

// peerWatch is what the last look at a forwarded session's ends found, by side:
// nobody else asks them whether they are there.
type peerWatch struct {
	acked  [2]uint64 // of the bytes sent to it
	owes   [2]bool   // it hadn't acknowledged all
	since  [2]int64  // when that last changed, if it owes some
	probes [2]uint8  // in vain so far
	asked  [2]int64  // when the last one was sent
	next   [2]int64  // when the next one is due
}

// watchPeers does for both ends what TCP's own timers do for a socket: keepalive,
// and dead_peer, judged from acknowledgements.
func (m *forwarder) watchPeers(now int64) {
	if m.o.fault.noPeers {
		return
	}
	c, idle := m.s.Settings.Config, m.probeIdle()
	for side := range 2 {
		if c.DeadPeer > 0 && m.ignores(side, now) >= int64(max(c.DeadPeer, leastDeadPeer)) || m.vanished(side, now, idle) {
			m.s.cut(accesslog.DeadPeer)
			return
		}
	}
}

// probeIdle is for how long a side may be silent before it is probed.
func (m *forwarder) probeIdle() int64 {
	if idle := m.s.Settings.Config.Keepalive; idle > 0 {
		return int64(idle)
	}
	return int64(probeAfter)
}

// ignores is for how long a side has left bytes sent to it unacknowledged. What it is
// found to owe for the first time was sent since the last look, or since the session
// rests: not before the last packet that goes to it, for all that can be told.
func (m *forwarder) ignores(side int, now int64) int64 {
	w, from := &m.watch, 1-side
	acked, owed := m.rec.Delivered(from), w.owes[side]
	w.owes[side] = m.rec.Unacknowledged(from)
	switch {
	case !w.owes[side]:
		w.since[side] = now
	case !owed:
		w.since[side] = min(now, m.rec.LastSeen(from))
	case acked != w.acked[side]:
		w.since[side] = now
	}
	w.acked[side] = acked
	return now - w.since[side]
}

// vanished probes a side that is silent, and says whether it leaves that unanswered
// too often. An answer is a packet of it like any other.
func (m *forwarder) vanished(side int, now, idle int64) bool {
	w := &m.watch
	// What wasn't acknowledged is sent again by its sender, as TCP's keepalive knows.
	if now-max(m.rec.LastSeen(side), m.rec.CutAt()) < idle || m.rec.Unacknowledged(1-side) {
		w.probes[side] = 0
		return false
	}
	if m.rec.LastSeen(side) > w.asked[side] {
		w.probes[side] = 0 // it has answered, though by now that is idle ago again
	}
	if w.probes[side] > 0 && now < w.next[side] {
		return false
	}
	if w.probes[side] >= sockopt.Probes {
		return true
	}
	w.probes[side]++
	w.asked[side] = now
	w.next[side] = now + max(idle/10, int64(time.Second))
	p := m.rec.ResetPoint(side)
	if err := m.o.Raw.Probe(p.From, p.To, p.Acked-1, p.Ack); err != nil {
		m.s.loop.e.log.Debug().Err(err).Stringer("to", p.To).Msg("a probe could not be sent")
	}
	return false
}
