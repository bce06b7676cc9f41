// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"time"

	"sluice/loader"
)

const (
	// lingerTime is how long late packets of an ended flow are still sent on, such
	// as an end of stream whose acknowledgement was lost.
	lingerTime = int64(900 * time.Millisecond)
	// resetTime is how long ends that were reset are still answered.
	resetTime = int64(2 * time.Second)
	// portRest is how long a port isn't used toward a backend that has closed first:
	// it may remember the connection for as long.
	portRest = 60 * time.Second
)

// lingering is a flow whose session has ended.
type lingering struct {
	m     *forwarder
	until int64
}

// linger keeps a flow's record for a while.
func (l *loop) linger(m *forwarder) {
	d := lingerTime
	if m.aborted {
		d = resetTime
	}
	l.lingering = append(l.lingering, lingering{m, l.now + d})
	l.lookAgain(d)
}

// dropLingering gives back the records whose time is over, all with all.
func (l *loop) dropLingering(all bool) {
	kept := l.lingering[:0]
	for _, g := range l.lingering {
		if !all && g.until > l.now {
			kept = append(kept, g)
			l.lookAgain(g.until - l.now)
			continue
		}
		g.m.release()
	}
	clear(l.lingering[len(kept):])
	if l.lingering = kept; len(kept) == 0 {
		l.lingering = nil
	}
}

// release gives the record and the port back.
func (m *forwarder) release() {
	rest := time.Duration(0)
	if side, ok := m.rec.FirstFin(); ok && side == loader.BackendSide {
		rest = portRest
	}
	m.o.free(m.slot)
	m.o.Ports.Give(m.backend.Peer, m.backend.Local.Port(), rest)
}
