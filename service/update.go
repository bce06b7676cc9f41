// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"sluice/config"
	"sluice/pool"
	"sluice/proxy"
	"sluice/stats"
)

// change is a new configuration with everything opened that it needs, so that
// taking it over can't fail.
type change struct {
	cfg       *config.Config
	fronts    map[config.Address]*front // bound for this change
	log       *stats.LogChange
	stats     *statsServer
	keepStats bool // the endpoint stays where it is
}

// prepare opens what c needs and the process doesn't have yet. On an error
// everything it opened is closed again, and the error names the item.
func (s *Service) prepare(c *config.Config) (_ *change, err error) {
	ch := &change{cfg: c, fronts: map[config.Address]*front{}}
	defer func() {
		if err != nil {
			s.discard(ch)
		}
	}()
	if s.accessLog == nil {
		if s.accessLog, err = stats.OpenAccessLog(c.AccessLog, s.log); err != nil {
			return nil, fmt.Errorf("access_log: %w", err)
		}
	} else if ch.log, err = s.accessLog.Prepare(c.AccessLog); err != nil {
		return nil, fmt.Errorf("access_log: %w", err)
	}
	ch.keepStats = s.stats != nil && !c.Stats.Off && s.stats.addr == c.Stats.Address
	if !ch.keepStats {
		if ch.stats, err = s.newStats(c); err != nil {
			return nil, err
		}
	}
	for _, l := range c.Listeners {
		for _, a := range l.Listen {
			if s.fronts[a] != nil {
				continue
			}
			f, err := s.engine.Bind(a, l.Backlog, l.Keepalive, s.sharesWithOwn(a))
			if err != nil {
				return nil, fmt.Errorf("listener %s: %w", l.Name, err)
			}
			ch.fronts[a] = &front{Front: f, addr: a}
		}
	}
	return ch, nil
}

// discard closes what a change has opened.
func (s *Service) discard(ch *change) {
	for _, f := range ch.fronts {
		f.Close()
	}
	if ch.log != nil {
		ch.log.Discard()
	}
	if ch.stats != nil {
		ch.stats.Close()
	}
}

// sharesWithOwn says whether a overlaps an address of our own, which may also
// be one that is being closed: its sockets go as soon as their queues are served.
func (s *Service) sharesWithOwn(a config.Address) bool {
	still := s.closing[:0]
	for _, f := range s.closing {
		if overlap(f.addr, a) {
			select {
			case <-f.Done():
				continue
			case <-time.After(100 * time.Millisecond):
			}
		}
		select {
		case <-f.Done():
		default:
			still = append(still, f)
		}
	}
	s.closing = still
	for _, f := range s.closing {
		if overlap(f.addr, a) {
			return true
		}
	}
	for b := range s.fronts {
		if overlap(a, b) {
			return true
		}
	}
	return false
}

// overlap says whether sockets on both addresses would be in each other's way.
func overlap(a, b config.Address) bool {
	if a.Path != "" || b.Path != "" || a.Port != b.Port {
		return false
	}
	if a == b || a.Any || b.Any {
		return true
	}
	return a.Addr.Is4() == b.Addr.Is4() && (a.Wildcard() || b.Wildcard())
}

// commit takes a prepared change over. One generation covers all pools and
// listeners; nothing in here waits for anybody but the loops' locks.
func (s *Service) commit(ch *change) {
	now := time.Now()
	next := map[config.Address]*front{}
	for _, l := range ch.cfg.Listeners {
		for _, a := range l.Listen {
			if next[a] = s.fronts[a]; next[a] == nil {
				next[a] = ch.fronts[a]
			}
		}
	}
	s.level.setName(ch.cfg.Log.Level)
	var cut []*pool.Backend
	old := s.fronts
	s.engine.Update(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		cut = s.applyPools(ch.cfg, now)
		s.applyListeners(ch.cfg, next)
		if ch.log != nil {
			ch.log.Commit()
		}
		s.fronts, s.cfg = next, ch.cfg
		s.conf.OK, s.conf.Error, s.conf.LoadedAt = true, "", now
	})
	s.engine.ResetBackends(cut)
	for a, f := range old {
		if next[a] == nil {
			s.closeFront(f)
		}
	}
	if !ch.keepStats {
		previous := s.stats
		s.stats = ch.stats
		s.serveStats(s.stats)
		if previous != nil {
			// Whoever edits over the endpoint's own answer isn't waited for.
			go previous.Close()
		}
	}
	s.sweepPools()
}

// applyPools makes the pools what c says and returns the backends whose
// sessions are to be cut. Under s.mu and the engine's update.
func (s *Service) applyPools(c *config.Config, now time.Time) (cut []*pool.Backend) {
	wanted := map[string]bool{}
	for _, p := range c.Pools {
		wanted[p.Name] = true
		e := s.pools[p.Name]
		if e == nil {
			e = s.newPool(p.Name)
			s.pools[p.Name] = e
		}
		removed := e.pool.Apply(poolOptions(p), specs(p, s.names.get), now)
		e.close = p.CloseOnRemove
		if e.close {
			cut = append(cut, removed...)
		}
	}
	for name, e := range s.pools {
		if wanted[name] {
			continue
		}
		removed := e.pool.Apply(e.pool.Options(), nil, now)
		if e.close {
			cut = append(cut, removed...)
		}
		delete(s.pools, name)
		s.gone = append(s.gone, e)
	}
	return cut
}

// newPool makes a pool, or brings a removed one back that still has sessions.
func (s *Service) newPool(name string) *poolEntry {
	for i, e := range s.gone {
		if e.pool.Name() == name {
			s.gone = append(s.gone[:i:i], s.gone[i+1:]...)
			return e
		}
	}
	e := &poolEntry{}
	var board pool.Board
	if s.dispatch != nil {
		b, slot, err := s.dispatch.NewBoard()
		if err != nil {
			s.log.Warn().Err(err).Str("pool", name).Msg("picks are made at accept")
		} else {
			board, e.board, e.slot = b, true, slot
		}
	}
	e.pool = pool.New(name, board, s.poolEvent)
	return e
}

func (s *Service) poolEvent(e pool.Event) {
	level := zerologLevel(e.Kind)
	s.events.post(event{level: level, msg: e.Kind.String(), pool: e.Pool, backend: e.Backend})
}

// applyListeners hands each front the settings of its listener. Under s.mu and
// the engine's update.
func (s *Service) applyListeners(c *config.Config, fronts map[config.Address]*front) {
	byName := map[string]*config.Pool{}
	for _, p := range c.Pools {
		byName[p.Name] = p
	}
	tcpInfo, serverAddr := wantedByLog(c.AccessLog)
	next := map[string]*listenerEntry{}
	for _, l := range c.Listeners {
		e := s.listeners[l.Name]
		if e == nil {
			e = &listenerEntry{counters: stats.NewListener(l.Name), limits: proxy.NewLimits()}
		}
		e.cfg = l
		e.datapath, e.reason = s.rung(l)
		next[l.Name] = e
		p := s.pools[l.Pool]
		for _, a := range l.Listen {
			f := fronts[a]
			s.setDispatch(f, dispatchable(l, byName[l.Pool]), p)
			f.Serve(&proxy.Settings{
				Config: l, Pool: p.pool, Counters: e.counters, Limits: e.limits,
				SpliceAllowed: e.datapath == config.Splice, Dispatched: f.dispatched,
				TCPInfo: tcpInfo && l.AccessLog, ServerAddr: serverAddr && l.AccessLog,
			})
		}
	}
	s.listeners = next
}

// setDispatch has the program in the kernel pick for f, or not.
func (s *Service) setDispatch(f *front, wanted bool, p *poolEntry) {
	if s.dispatch == nil || f.addr.Path != "" {
		return
	}
	if wanted && p.board {
		err := s.dispatch.SetListener(f.addr.AddrPort(), f.addr.Any, p.slot)
		if err == nil {
			f.dispatched = true
			return
		}
		s.log.Warn().Err(err).Str("listen", f.addr.String()).Msg("picks are made at accept")
	}
	s.unsetDispatch(f)
}

func (s *Service) unsetDispatch(f *front) {
	if !f.dispatched {
		return
	}
	f.dispatched = false
	if err := s.dispatch.DeleteListener(f.addr.AddrPort(), f.addr.Any); err != nil {
		s.log.Warn().Err(err).Str("listen", f.addr.String()).Msg("taking an address away from dispatch")
	}
}

// closeFront has f serve its accept queue and close. It returns at once.
func (s *Service) closeFront(f *front) {
	s.unsetDispatch(f)
	f.Close()
	s.closing = append(s.closing, f)
}

// sweepPools forgets removed pools whose last session has ended.
func (s *Service) sweepPools() {
	s.mu.Lock()
	defer s.mu.Unlock()
	still := s.gone[:0:0]
	for _, e := range s.gone {
		if len(e.pool.Backends()) > 0 {
			still = append(still, e)
			continue
		}
		s.freePool(e)
	}
	s.gone = still
}

func (s *Service) freePool(e *poolEntry) {
	e.pool.Close()
	if e.board {
		s.dispatch.FreeBoard(e.slot)
		e.board = false
	}
}

// applyNames takes new answers of the resolver over; it can't fail.
func (s *Service) applyNames() {
	now := time.Now()
	var cut []*pool.Backend
	s.engine.Update(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		cut = s.applyPools(s.cfg, now)
	})
	s.engine.ResetBackends(cut)
}

// nameFailed tells of a look-up in vain; known: there is an earlier answer.
func (s *Service) nameFailed(name string, known bool, err error) {
	msg := "a name doesn't resolve: its backends are down until it does"
	if known {
		msg = "a name doesn't resolve any more: its last addresses stay"
	}
	s.events.post(event{level: zerolog.WarnLevel, msg: msg, backend: name, err: err.Error()})
}

// warnNames says which names haven't been answered at all at start.
func (s *Service) warnNames(c *config.Config) {
	for _, name := range hosts(c) {
		if s.names.waiting(name) {
			s.nameFailed(name, false, errors.New("no answer yet"))
		}
	}
}
