// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"time"

	"sluice/config"
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

// Snapshot implements stats.Source.
func (s *Service) Snapshot() *stats.Snapshot {
	if s.engine != nil {
		s.engine.Flush()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	out := &stats.Snapshot{
		Version: s.opts.Version, Kernel: s.kernel, PID: pid(), UptimeSeconds: now.Sub(s.started).Seconds(),
		Config: s.conf, GoVersion: GoVersion(), Started: s.started,
		ReloadsOK: s.reloads.ok, ReloadsRefused: s.reloads.refused,
		Listeners: []stats.ListenerStats{}, Pools: []stats.PoolStats{},
	}
	if s.accessLog != nil {
		out.AccessLog = stats.AccessLogStats{Lines: s.accessLog.Lines(), Dropped: s.accessLog.Dropped()}
	}
	if s.cfg == nil {
		return out
	}
	for _, l := range s.cfg.Listeners {
		e := s.listeners[l.Name]
		if e == nil {
			continue
		}
		ls := e.counters.Snapshot()
		ls.Listen = []string{}
		for _, a := range l.Listen {
			ls.Listen = append(ls.Listen, a.String())
		}
		ls.Pool, ls.Protocol, ls.Datapath, ls.Reason = l.Pool, "tcp", string(e.datapath), e.reason
		out.Listeners = append(out.Listeners, ls)
	}
	for _, p := range s.cfg.Pools {
		if e := s.pools[p.Name]; e != nil {
			out.Pools = append(out.Pools, poolStats(e.pool, now))
		}
	}
	for _, e := range s.gone {
		if ps := poolStats(e.pool, now); len(ps.Backends) > 0 {
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

// Flows implements stats.Source.
func (s *Service) Flows(limit int) []stats.Flow {
	if s.engine == nil {
		return []stats.Flow{}
	}
	return s.engine.Flows(limit)
}

// Stopping implements stats.Source.
func (s *Service) Stopping() bool { return s.stopping.Load() }
