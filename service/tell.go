// SPDX-License-Identifier: Apache-2.0

package service

import "fmt"

// tellListeners logs a line for each listener that is new, or of which an edit
// has changed what the line says: a datapath may change with the backends.
func (s *Service) tellListeners() {
	for _, l := range s.cfg.Listeners {
		e, fronts := s.listeners[l.Name], l.Fronts()
		line := fmt.Sprintf("%q %q %s %q", fronts, l.Pool, e.datapath, e.reason)
		if line == e.told {
			continue
		}
		e.told = line
		ev := s.log.Info().Str("listener", l.Name).Strs("listen", fronts).Str("pool", l.Pool).Str("datapath", string(e.datapath))
		if e.reason != "" {
			ev = ev.Str("reason", e.reason)
		}
		ev.Msg("listening")
	}
}
