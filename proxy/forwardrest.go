// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"math"
	"time"

	"sluice/loader"
)

// rest is why a forwarded session needn't be looked at: nothing has come of it, and
// nothing is due. With very many idle sessions the look of each second is what they cost,
// and what it costs is the memory that it touches: this touches the least of it.
type rest struct {
	seen  [2]int64 // each side's last packet, at the last look
	until int64    // nothing is due before, if no packet comes; 0: there is to be another look
}

// restSilence is how long a session has to be without a packet before it rests: by
// then all that its last one has changed in the record is there to be seen.
const restSilence = int64(time.Second)

// rests says whether the session can be left alone until the sweep after this one.
func (m *forwarder) rests() bool {
	return m.rest.until >= m.s.loop.sweepAt &&
		m.rec.LastSeen(loader.ClientSide) == m.rest.seen[loader.ClientSide] &&
		m.rec.LastSeen(loader.BackendSide) == m.rest.seen[loader.BackendSide]
}

// takeRest is told after a look at the session that it may rest. Only one of which
// nothing is under way does: neither an end nor a byte or a probe without its answer.
func (m *forwarder) takeRest() {
	s := m.s
	m.rest = rest{seen: [2]int64{m.rec.LastSeen(loader.ClientSide), m.rec.LastSeen(loader.BackendSide)}}
	if s.mover != m || !m.letGo || s.state != stateMoved || s.loop.now-m.lastSeen() < restSilence {
		return
	}
	if _, some := m.rec.FirstFin(); some || !m.rec.Forwarded() {
		return
	}
	until := int64(math.MaxInt64)
	if at, _ := s.expiry(s.lastActive()); at != 0 {
		until = at
	}
	idle := m.probeIdle()
	for side := range 2 {
		if m.watch.probes[side] > 0 || m.rec.Unacknowledged(side) {
			return
		}
		until = min(until, max(m.rec.LastSeen(side), m.rec.CutAt())+idle)
	}
	m.rest.until = until
}
