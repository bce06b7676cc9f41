// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"

	"sluice/loader"
)

// Reroute has forwarded sessions leave by the devices that lead to their ends now;
// device tells that of a destination, for packets from a source. Routes may have
// changed.
func (e *Engine) Reroute(device func(dst, src netip.Addr) (int, error)) {
	for _, l := range e.loops {
		l.call(func() { l.reroute(device) })
	}
}

func (l *loop) reroute(device func(dst, src netip.Addr) (int, error)) {
	type way struct{ dst, src netip.Addr }
	found := map[way]uint32{} // most sessions have a few ends in common
	l.sessions.each(func(s *pair) {
		m := s.fwd
		if m == nil {
			return
		}
		for side, to := range []loader.Leg{m.backend, m.client} { // what comes from the client goes to the backend
			w := way{to.Peer.Addr(), to.Local.Addr()}
			index, known := found[w]
			if !known {
				if i, err := device(w.dst, w.src); err == nil {
					index = uint32(i)
				}
				found[w] = index
			}
			// Without a route packets go where they went: it may come back.
			if index != 0 && index != m.rec.Device(side) {
				m.rec.SetDevice(side, index)
			}
		}
	})
}
