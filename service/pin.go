// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"time"

	"sluice/config"
	"sluice/loader"
	"sluice/pool"
	"sluice/proxy"
	"sluice/session"
	"sluice/stats"
)

// openPin takes the directory in which flows outlive the process, if the file names one:
// nobody else may have it, so that is an error of the file.
func (s *Service) openPin(c *config.Config) (err error) {
	if c.Forward.Pin == "" {
		return nil
	}
	if s.pin, err = loader.OpenPin(c.Forward.Pin); err != nil {
		return fmt.Errorf("%s:%d:%d: forward.pin: %w", c.File, c.Forward.PinPos.Line, c.Forward.PinPos.Column, err)
	}
	return nil
}

// closePin gives the directory back.
func (s *Service) closePin() error {
	p := s.pin
	s.pin = nil
	return p.Close()
}

// mayHaveLeft says whether a process before may have left flows.
func (s *Service) mayHaveLeft() bool { return s.pin != nil && !s.adopted && s.pin.Used() }

// adoptPorts keeps the source ports of the flows that are there out of the hands of new
// sessions.
func (s *Service) adoptPorts(o *offload) {
	if why := o.forward.Dropped(); why != "" {
		s.log.Warn().Str("path", s.pin.Path()).Str("reason", why).Msg("flows that were pinned are reset")
	}
	if n := o.forward.MaxFlows(); n != s.forwardConf.MaxFlows {
		s.log.Warn().Int("max_flows", n).Msg("forward.max_flows stays what it was: flows that are pinned go on")
	}
	lost := 0
	for _, l := range o.forward.Left() {
		leg := o.forward.Flow(l.Flow).Leg(loader.BackendSide)
		if leg.Peer.IsValid() && !o.ports.Adopt(leg.Peer, leg.Local.Port()) {
			lost++
		}
	}
	if lost > 0 {
		s.log.Warn().Int("flows", lost).Msg("others have the source ports of flows that are pinned: new sessions of theirs may meet them")
	}
}

// onlyLeavable says whether every session would go on if the process ended.
func (s *Service) onlyLeavable() bool {
	return s.pin != nil && s.engine.Leavable() == s.sessions.Live()
}

// adopt takes over the sessions that a process before has left. Under s.mu and the
// engine's update, with pools and listeners as the file has them. It returns the backends
// whose sessions are to be cut at once: the file doesn't have them any more.
func (s *Service) adopt(now time.Time) (cut []*pool.Backend) {
	if s.adopted || s.offload == nil {
		return nil
	}
	s.adopted = true
	if len(s.offload.forward.Left()) == 0 {
		return nil
	}
	h := &heirs{s: s, settings: map[string]*session.Settings{}, pools: map[string]*poolEntry{}, backends: map[heirKey]*pool.Backend{}}
	adopted, lost := s.engine.Adopt(h.of)
	s.log.Info().Str("path", s.pin.Path()).Int("sessions", adopted).Int("reset", lost).Msg("sessions of the process before are taken over")
	return s.dueRemovals(now)
}

// heirs finds what sessions of a process before go on with: by the names that they had
// then. What the file doesn't have any more is as if an edit had removed it.
type heirs struct {
	s        *Service
	settings map[string]*session.Settings
	pools    map[string]*poolEntry
	backends map[heirKey]*pool.Backend
}

type heirKey struct{ pool, backend string }

func (h *heirs) of(v *session.Saved) proxy.Heir {
	p := h.pool(v.Pool)
	a := pool.Addr{AddrPort: v.Backend}
	key := heirKey{v.Pool, a.String()}
	b := h.backends[key]
	if b == nil {
		b = p.pool.Find(a)
		h.backends[key] = b
	}
	return proxy.Heir{Settings: h.listener(v, p), Pool: p.pool, Backend: b}
}

func (h *heirs) pool(name string) *poolEntry {
	if e := h.s.pools[name]; e != nil {
		return e
	}
	if e := h.pools[name]; e != nil {
		return e
	}
	e := h.s.newPool(name)
	e.pool.Retire(time.Now())
	h.s.gone = append(h.s.gone, e)
	h.pools[name] = e
	return e
}

func (h *heirs) listener(v *session.Saved, p *poolEntry) *session.Settings {
	if set := h.settings[v.Listener]; set != nil {
		return set
	}
	var set *session.Settings
	if e := h.s.listeners[v.Listener]; e != nil {
		set = e.settings
	} else {
		tcpInfo, serverAddr := false, false
		if h.s.cfg != nil {
			tcpInfo, serverAddr = wantedByLog(h.s.cfg.AccessLog)
		}
		e := &listenerEntry{cfg: v.Config(), counters: stats.NewListener(v.Listener), limits: session.NewLimits(), leftAt: time.Now()}
		set = &session.Settings{
			Config: e.cfg, Pool: p.pool, Counters: e.counters, Limits: e.limits, OffloadAllowed: true, TCPInfo: tcpInfo, ServerAddr: serverAddr,
		}
		e.settings = set
		h.s.left = append(h.s.left, e)
	}
	h.settings[v.Listener] = set
	return set
}
