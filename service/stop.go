// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"time"
)

// queueTime is how long an accept queue may wait to be served, at least, and
// how long what needs no waiting may take.
const queueTime = 2 * time.Second

// leaveTick is how often a drain looks whether only sessions are left that go on by
// themselves.
const leaveTick = 100 * time.Millisecond

// drain closes the front ports and waits for the last session, drain_timeout
// at most; SIGINT, a second SIGTERM or SIGQUIT, or the end of ctx end it at once.
func (s *Service) drain(ctx context.Context, signals *Signals) {
	s.stopping.Store(true)
	s.notify(s.opts.Notify.Stopping("draining"))
	s.log.Info().Int("sessions", s.sessions.Live()).Stringer("drain_timeout", s.cfg.DrainTimeout).Msg("stopping: waiting for the sessions to end")
	s.closeWatch()
	served := s.closeFronts()
	s.carriers.Drain()
	limit := time.NewTimer(s.cfg.DrainTimeout)
	defer limit.Stop()
	var idle <-chan struct{} // once nobody waits in a queue
	tick := time.NewTicker(busyTick)
	defer tick.Stop()
	left := time.NewTicker(leaveTick)
	defer left.Stop()
	for {
		select {
		case <-served:
			served, idle = nil, s.sessions.Idle()
		case <-idle:
			return
		case <-left.C:
			if idle != nil && s.onlyLeavable() {
				s.reset()
				return
			}
		case <-limit.C:
			s.log.Warn().Int("sessions", s.sessions.Live()).Msg("drain_timeout is over: resetting the sessions that are left")
			s.reset()
			return
		case <-ctx.Done():
			s.reset()
			return
		case <-tick.C:
			now := time.Now()
			for _, e := range s.pools {
				e.pool.Tick(now)
			}
			s.checkOffload()
		case <-s.cuts.C:
			s.cutRemoved()
		case <-signals.end:
			s.reset()
			return
		case <-signals.reload:
			s.log.Warn().Msg("reload refused: stopping")
		case <-signals.reopen:
			s.reopen()
		}
	}
}

// stop ends everything at once.
func (s *Service) stop() {
	s.stopping.Store(true)
	s.notify(s.opts.Notify.Stopping("stopping"))
	s.closeWatch()
	s.closeFronts()
	s.reset()
}

// reset closes what is left of the fronts and cuts the sessions; each gets its
// line. Sessions that go on by themselves are left to the next process.
func (s *Service) reset() {
	s.cutFronts()
	if s.pin != nil {
		if n := s.engine.Leavable(); n > 0 {
			s.log.Info().Int("sessions", n).Str("path", s.pin.Path()).Msg("forwarded sessions go on: the next process takes them over, `sluice detach` ends them")
		}
		s.engine.LeaveForwarded()
	}
	s.carriers.ResetAll()
	select {
	case <-s.sessions.Idle():
	case <-time.After(queueTime):
	}
}

func (s *Service) closeWatch() {
	if s.watch != nil {
		s.watch.Close()
		s.watch = nil
	}
}

// closeFronts begins to close all front ports; served is closed when their
// queues are served.
func (s *Service) closeFronts() (served <-chan struct{}) {
	s.mu.Lock()
	fronts := s.fronts
	s.fronts = nil
	s.mu.Unlock()
	for _, f := range fronts {
		s.closeFront(f)
	}
	c := make(chan struct{})
	go func(closing []*front) {
		defer close(c)
		for _, f := range closing {
			<-f.Done()
		}
	}(s.closing)
	return c
}

// cutFronts closes the sockets that are still served, whoever waits.
func (s *Service) cutFronts() {
	limit, cancel := context.WithTimeout(context.Background(), queueTime)
	defer cancel()
	for _, f := range s.closing {
		f.Cut()
	}
	for _, f := range s.closing {
		select {
		case <-f.Done():
		case <-limit.Done():
			return
		}
	}
	s.closing = nil
}

// close gives everything back, also after a start that failed halfway.
func (s *Service) close() {
	s.closeWatch()
	if s.engine != nil {
		s.closeFronts()
		s.cutFronts()
	}
	if s.names != nil {
		s.names.Close()
	}
	if s.stats != nil {
		s.stats.Close()
		<-s.stats.done
		s.stats = nil
	}
	if err := s.carriers.Close(); err != nil {
		s.log.Error().Err(err).Msg("ending the event loops")
	}
	if s.accessLog != nil {
		if err := s.accessLog.Close(); err != nil {
			s.log.Error().Err(err).Msg("closing the access log")
		}
	}
	s.cuts.Stop()
	s.mu.Lock()
	for _, e := range s.pools {
		s.freePool(e)
	}
	for _, e := range s.gone {
		s.freePool(e)
	}
	s.pools, s.gone = nil, nil
	s.mu.Unlock()
	if err := s.closeOffload(); err != nil {
		s.log.Error().Err(err).Msg("ending offload")
	}
	if s.splice != nil {
		s.splice.Close()
	}
	if s.dispatch != nil {
		s.dispatch.Close()
	}
}
