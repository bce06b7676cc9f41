// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"sluice/accesslog"
	"sluice/config"
	"sluice/pool"
	"sluice/session"
	"sluice/stats"
)

// change is a new configuration with everything opened that it needs, so that
// taking it over can't fail.
type change struct {
	cfg       *config.Config
	layout    *layout
	pools     []poolChange
	log       *accesslog.Change
	stats     *statsServer
	keepStats bool // the endpoint stays where it is
}

// prepare opens what c needs and the process doesn't have yet. On an error
// everything it opened is closed again, and the error names the item.
func (s *Service) prepare(c *config.Config) (_ *change, err error) {
	s.startOffload(c)
	ch := &change{cfg: c}
	defer func() {
		if err != nil {
			s.discard(ch)
		}
	}()
	if s.accessLog == nil {
		if s.accessLog, err = accesslog.Open(c.AccessLog, s.log); err != nil {
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
	if ch.layout, err = s.bindLayout(c); err != nil {
		return nil, err
	}
	ch.pools = s.preparePools(c)
	return ch, nil
}

// discard closes what a change has opened.
func (s *Service) discard(ch *change) {
	if ch.layout != nil {
		ch.layout.discard()
	}
	if ch.log != nil {
		ch.log.Discard()
	}
	if ch.stats != nil {
		ch.stats.Close()
	}
}

// commit takes a prepared change over. One generation covers all pools and
// listeners; nothing in here waits for anybody but the loops' locks.
func (s *Service) commit(ch *change) {
	now := time.Now()
	s.level.setName(ch.cfg.Log.Level)
	var cut []*pool.Backend
	s.sessions.Update(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		cut = s.applyPools(ch.pools, now)
		s.applyListeners(ch.cfg, ch.layout)
		if ch.log != nil {
			ch.log.Commit()
		}
		s.fronts, s.cfg = ch.layout.fronts, ch.cfg
		cut = append(cut, s.adopt(now)...)
		s.look()
		s.conf.OK, s.conf.Error, s.conf.LoadedAt = true, "", now
	})
	s.carriers.Cut(cut)
	s.carriers.CutForbidden(s.strict())
	s.closeLeft(ch.layout)
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
	s.dropOffload()
}

// poolChange is a pool of a new configuration, with what is slow about it done.
type poolChange struct {
	cfg   *config.Pool
	entry *poolEntry
	next  *pool.Prepared
}

// preparePools does for the pools of c what takes long, so that no loop waits
// for it. A pool that is new isn't one of the service's yet.
func (s *Service) preparePools(c *config.Config) []poolChange {
	changes := make([]poolChange, 0, len(c.Pools))
	for _, p := range c.Pools {
		e := s.pools[p.Name]
		if e == nil {
			e = s.newPool(p.Name)
		}
		changes = append(changes, poolChange{p, e, e.pool.Prepare(poolOptions(p), specs(p, s.names.get))})
	}
	return changes
}

// applyPools makes the pools what was prepared and returns the backends whose
// sessions are to be cut now. Under s.mu and the engine's update.
func (s *Service) applyPools(changes []poolChange, now time.Time) (cut []*pool.Backend) {
	wanted := map[string]bool{}
	for _, c := range changes {
		p, e := c.cfg, c.entry
		wanted[p.Name] = true
		if s.pools[p.Name] == nil {
			s.pools[p.Name] = e
			s.gone = slices.DeleteFunc(s.gone, func(g *poolEntry) bool { return g == e })
		}
		e.pool.Commit(c.next, now)
		e.onRemove = onRemove{p.CloseOnRemove, p.CloseAfter}
	}
	for name, e := range s.pools {
		if wanted[name] {
			continue
		}
		if e.onRemove.close {
			e.pool.Apply(e.pool.Options(), nil, now)
		} else {
			e.pool.Retire(now) // whom its listeners have let in is served yet
		}
		delete(s.pools, name)
		s.gone = append(s.gone, e)
	}
	return s.dueRemovals(now)
}

// newPool makes a pool, or brings a removed one back that still has sessions.
func (s *Service) newPool(name string) *poolEntry {
	for _, e := range s.gone {
		if e.pool.Name() == name {
			return e
		}
	}
	e := &poolEntry{}
	var board pool.Board
	if s.dispatch != nil {
		b, err := s.dispatch.NewBoard()
		if err != nil {
			s.noDispatchFor(fmt.Errorf("pool %s: %w", name, err))
		} else {
			board, e.board = b, b
		}
	}
	e.pool = pool.New(name, board, s.poolEvent)
	return e
}

func (s *Service) poolEvent(e pool.Event) {
	level := zerologLevel(e.Kind)
	s.events.post(event{level: level, msg: e.Kind.String(), pool: e.Pool, backend: e.Backend, err: e.Why})
}

// applyListeners hands each front the settings of its listener. Under s.mu and
// the engine's update.
func (s *Service) applyListeners(c *config.Config, to *layout) {
	byName := map[string]*config.Pool{}
	for _, p := range c.Pools {
		byName[p.Name] = p
	}
	tcpInfo, serverAddr := wantedByLog(c.AccessLog)
	next := map[string]*listenerEntry{}
	for _, f := range to.left {
		s.unsetDispatch(f) // before others take the same key
		f.Succeed(to.heirs(f))
	}
	for _, l := range c.Listeners {
		e := s.listenerOf(l.Name)
		if e == nil {
			e = &listenerEntry{counters: stats.NewListener(l.Name), limits: session.NewLimits()}
		}
		e.cfg = l
		e.datapath, e.reason = s.bestFor(l, byName[l.Pool])
		plain := e.datapath // of a listener for calls: what its other sessions get
		calls := s.callsOf(c, l)
		if calls != nil {
			e.datapath, e.reason = config.CallsPath, ""
			e.counters.HasCalls()
		}
		next[l.Name] = e
		p := s.pools[l.Pool]
		for _, f := range to.of[l] {
			s.setDispatch(f, calls == nil && dispatchable(l, byName[l.Pool]), p)
			e.settings = &session.Settings{
				Config: l, Pool: p.pool, Counters: e.counters, Limits: e.limits,
				OffloadAllowed: plain == config.Offload, Calls: calls,
				SpliceAllowed: s.whyNotSplice(l, byName[l.Pool]) == "", Reason: e.reason, Dispatched: f.board != nil,
				TCPInfo: tcpInfo && l.AccessLog != config.LogOff, ServerAddr: serverAddr && l.AccessLog != config.LogOff,
			}
			f.Serve(e.settings)
		}
	}
	s.retireListeners(next)
	s.listeners = next
}

// strict are the settings of the listeners whose live sessions have to obey
// them (on_datapath: close).
func (s *Service) strict() map[string]*session.Settings {
	list := map[string]*session.Settings{}
	for name, e := range s.listeners {
		if e.cfg.OnDatapathClose {
			list[name] = e.settings
		}
	}
	return list
}

// setDispatch has the program in the kernel pick for f, or not.
func (s *Service) setDispatch(f *front, wanted bool, p *poolEntry) {
	if s.dispatch == nil || f.addr.Path != "" {
		return
	}
	if wanted && p.board != nil {
		if f.board == p.board {
			return // a system call less, and there may be thousands of fronts
		}
		err := s.dispatch.SetListener(f.addr.AddrPort(), f.addr.Any, p.board)
		if err == nil {
			f.board = p.board
			return
		}
		s.noDispatchFor(err)
	}
	s.unsetDispatch(f)
}

func (s *Service) unsetDispatch(f *front) {
	if f.board == nil {
		return
	}
	f.board = nil
	if err := s.dispatch.DeleteListener(f.addr.AddrPort(), f.addr.Any); err != nil {
		s.events.post(event{level: zerolog.WarnLevel, msg: "taking an address away from dispatch", err: err.Error()})
	}
}

// noDispatchFor says that a pool or a front does without the program: an event,
// as there may be thousands, and a log that isn't read mustn't hold up the loops.
func (s *Service) noDispatchFor(err error) {
	s.events.post(event{level: zerolog.WarnLevel, msg: "picks are made at accept", err: err.Error()})
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
	s.look()
}

func (s *Service) freePool(e *poolEntry) {
	e.pool.Close()
	if e.board != nil {
		e.board.Free()
		e.board = nil
	}
}

// applyNames takes new answers of the resolver over; it can't fail.
func (s *Service) applyNames() {
	changes := s.preparePools(s.cfg)
	now := time.Now()
	var cut []*pool.Backend
	s.sessions.Update(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		cut = s.applyPools(changes, now)
		s.look()
	})
	s.carriers.Cut(cut)
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
