// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"time"

	"sluice/config"
	"sluice/loader"
	"sluice/pool"
	"sluice/stats"
)

// statsServer is the endpoint and where it is.
type statsServer struct {
	*stats.Server
	addr config.Address
	done chan struct{}
}

// newStats binds the endpoint as c says. Nil without an error: there is none,
// because it is off or because its default address is taken.
func (s *Service) newStats(c *config.Config) (*statsServer, error) {
	if c.Stats.Off {
		return nil, nil
	}
	srv, err := stats.NewServer(c.Stats.Address, s, s.log)
	if err != nil {
		if !c.Stats.Explicit {
			s.log.Warn().Err(err).Msg("no statistics endpoint: its default address is taken; write another, or off, as stats")
			return nil, nil
		}
		return nil, fmt.Errorf("stats %s: %w", c.Stats.Address, err)
	}
	return &statsServer{Server: srv, addr: c.Stats.Address, done: make(chan struct{})}, nil
}

func (s *Service) serveStats(srv *statsServer) {
	if srv == nil {
		return
	}
	go func() {
		defer close(srv.done)
		if err := srv.Serve(); err != nil {
			s.log.Error().Err(err).Msg("the statistics endpoint ended")
		}
	}()
}

// view is what the statistics show of the configuration in force: made anew by
// each edit and never changed, so that a scrape only holds a lock while it
// takes it, and no edit, nor a loop behind one, waits for a scrape.
type view struct {
	listeners []viewedListener
	pools     []*pool.Pool // those of the file, then removed ones with sessions
}

type viewedListener struct {
	counters *stats.Listener
	fixed    stats.ListenerStats // without figures
	left     bool                // removed: there while it has sessions
}

// look makes the view what is in force now. Under s.mu.
func (s *Service) look() {
	v := &view{}
	for _, l := range s.cfg.Listeners {
		e := s.listeners[l.Name]
		v.listeners = append(v.listeners, viewedListener{e.counters, stats.ListenerStats{
			Listen: l.Fronts(), Pool: l.Pool, Protocol: l.Protocol(), Datapath: string(e.datapath), Reason: e.reason,
		}, false})
	}
	for _, e := range s.left {
		v.listeners = append(v.listeners, viewedListener{e.counters, stats.ListenerStats{
			Listen: []string{}, Pool: e.cfg.Pool, Protocol: e.cfg.Protocol(), Datapath: string(e.datapath), Reason: e.reason,
		}, true})
	}
	for _, p := range s.cfg.Pools {
		v.pools = append(v.pools, s.pools[p.Name].pool)
	}
	for _, e := range s.gone {
		v.pools = append(v.pools, e.pool)
	}
	s.view = v
}

// Snapshot implements stats.Source.
func (s *Service) Snapshot() *stats.Snapshot {
	s.carriers.Flush()
	s.mu.Lock()
	v, conf, reloads := s.view, s.conf, s.reloads
	s.mu.Unlock()
	now := time.Now()
	out := &stats.Snapshot{
		Version: s.opts.Version, Kernel: s.kernel, PID: pid(), UptimeSeconds: now.Sub(s.started).Seconds(),
		Config: conf, GoVersion: GoVersion(), Started: s.started,
		ReloadsOK: reloads.ok, ReloadsRefused: reloads.refused,
		Listeners: []stats.ListenerStats{}, Pools: []stats.PoolStats{},
	}
	if s.accessLog != nil {
		out.AccessLog = stats.AccessLogStats{Lines: s.accessLog.Lines(), Dropped: s.accessLog.Dropped()}
	}
	if s.dispatch != nil {
		out.Dispatch = outcomes(s.dispatch.Outcomes())
	}
	if s.splice != nil {
		out.Splice = outcomes(s.splice.Outcomes())
	}
	out.Forward = s.forwardStats()
	if v == nil {
		return out
	}
	for _, l := range v.listeners {
		ls := l.counters.Snapshot()
		ls.Listen, ls.Pool, ls.Protocol, ls.Datapath, ls.Reason = l.fixed.Listen, l.fixed.Pool, l.fixed.Protocol, l.fixed.Datapath, l.fixed.Reason
		switch {
		case !l.left:
			out.Listeners = append(out.Listeners, ls)
		case ls.Active > 0:
			out.Left = append(out.Left, ls)
		}
	}
	for _, p := range v.pools {
		if ps := poolStats(p, now); len(ps.Backends) > 0 {
			out.Pools = append(out.Pools, ps)
		}
	}
	return out
}

func poolStats(p *pool.Pool, now time.Time) stats.PoolStats {
	var list []pool.BackendStats
	for _, b := range p.Backends() {
		list = append(list, b.Snapshot(now))
	}
	return stats.NewPoolStats(p.Name(), string(p.Options().Balance), list)
}

func outcomes(list []loader.Outcome) []stats.OutcomeCount {
	out := make([]stats.OutcomeCount, len(list))
	for i, o := range list {
		out[i] = stats.OutcomeCount{Outcome: o.Name, Count: o.Count}
	}
	return out
}

// Flows implements stats.Source.
func (s *Service) Flows(limit int, by stats.FlowOrder) []stats.Flow {
	out := []stats.Flow{}
	if len(s.carriers) == 0 {
		return out
	}
	flows := s.carriers.Flows(limit, by)
	now := s.sessions.Clock().Now()
	for i := range flows {
		out = append(out, flows[i].Describe(now))
	}
	return out
}

// Stopping implements stats.Source.
func (s *Service) Stopping() bool { return s.stopping.Load() }
