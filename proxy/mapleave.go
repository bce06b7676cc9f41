// SPDX-License-Identifier: Apache-2.0

package proxy

import "sluice/session"

func (m *splicer) path() session.Path { return session.Splice }

func (m *splicer) total() uint64 {
	up, down := m.moved()
	return m.redirected + up + down
}

func (m *splicer) moved() (up, down uint64) {
	if !m.live {
		return 0, 0
	}
	return m.dir[0].shared.Redirected(), m.dir[1].shared.Redirected()
}

func (m *splicer) lastActive() int64 {
	if !m.live {
		return 0
	}
	return int64(max(m.dir[0].shared.LastActive(), m.dir[1].shared.LastActive()))
}

func (m *splicer) abort() {}

func (m *splicer) endedAt(now int64) int64 { return now }

func (m *splicer) stop(e *end) { m.from(e).shared.SetHold(true) }

func (m *splicer) arrived(e *end) bool {
	return !m.live || m.lost == e || m.drained(m.back(m.from(e)))
}

// leave takes the sockets' records out first, so that nothing is redirected after
// the count. The sockets leave the map by being closed; until then the flow's number
// is theirs.
func (m *splicer) leave() {
	if !m.live {
		return
	}
	l := m.s.loop
	l.e.splice.Remove(m.flow)
	var redirected, sent [2]uint64
	for i := range m.dir {
		d := &m.dir[i]
		redirected[i] = d.shared.Redirected()
		sent[i] = redirected[i]
		if !d.dst.finished {
			// Cut short: what has not entered the socket was never sent.
			for range 2 { // what is acknowledged during one look is in the next
				if w, ok := entered(d.dst.fd); ok {
					d.progress(w)
					sent[i] = d.sent(redirected[i], d.dst.out-d.outAt)
				}
			}
		}
	}
	for i := range m.dir {
		d := &m.dir[i]
		d.src.in += redirected[i] + (d.shared.Passed() - d.read)
		d.dst.out += sent[i]
		m.redirected += sent[i]
	}
	if m.s.First == 0 && m.s.up.in > 0 {
		m.s.First = l.now
	}
	m.live = false
	l.moving--
	l.e.flows[m.flow].Store(nil)
}

// closed gives the flow's number back: whoever has it next takes the sockets'
// places in the map.
func (m *splicer) closed() { m.s.loop.e.splice.Free(m.flow) }
