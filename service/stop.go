// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"os"
	"syscall"
	"time"
)

// queueTime is how long closed fronts may take to serve their accept queues.
const queueTime = 2 * time.Second

// drain closes the front ports and waits for the last session, drain_timeout
// at most; SIGINT, a second SIGTERM or the end of ctx end it at once.
func (s *Service) drain(ctx context.Context, signals <-chan os.Signal) {
	s.stopping.Store(true)
	s.notify(s.opts.Notify.Stopping("draining"))
	s.log.Info().Int("sessions", s.engine.Sessions()).Stringer("drain_timeout", s.cfg.DrainTimeout).Msg("stopping: waiting for the sessions to end")
	s.closeWatch()
	s.closeFronts()
	limit := time.NewTimer(s.cfg.DrainTimeout)
	defer limit.Stop()
	idle := s.engine.Idle()
	tick := time.NewTicker(busyTick)
	defer tick.Stop()
	for {
		select {
		case <-idle:
			return
		case <-limit.C:
			s.log.Warn().Int("sessions", s.engine.Sessions()).Msg("drain_timeout is over: resetting the sessions that are left")
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
		case sig := <-signals:
			switch sig {
			case syscall.SIGTERM, syscall.SIGINT:
				s.reset()
				return
			case syscall.SIGHUP:
				s.log.Warn().Msg("reload refused: stopping")
			case syscall.SIGUSR1:
				s.reopen()
			}
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

// reset cuts the sessions that are left; each gets its line.
func (s *Service) reset() {
	s.engine.ResetAll()
	select {
	case <-s.engine.Idle():
	case <-time.After(queueTime):
	}
}

func (s *Service) closeWatch() {
	if s.watch != nil {
		s.watch.Close()
		s.watch = nil
	}
}

// closeFronts closes all front ports and waits until their queues are served.
func (s *Service) closeFronts() {
	s.mu.Lock()
	fronts := s.fronts
	s.fronts = nil
	s.mu.Unlock()
	for _, f := range fronts {
		s.closeFront(f)
	}
	limit := time.NewTimer(queueTime)
	defer limit.Stop()
	for _, f := range s.closing {
		select {
		case <-f.Done():
		case <-limit.C:
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
	}
	if s.names != nil {
		s.names.Close()
	}
	if s.stats != nil {
		s.stats.Close()
		<-s.stats.done
		s.stats = nil
	}
	if s.engine != nil {
		s.engine.Close()
	}
	if s.accessLog != nil {
		if err := s.accessLog.Close(); err != nil {
			s.log.Error().Err(err).Msg("closing the access log")
		}
	}
	for _, e := range s.pools {
		s.freePool(e)
	}
	for _, e := range s.gone {
		s.freePool(e)
	}
	s.pools, s.gone = nil, nil
	if s.splice != nil {
		s.splice.Close()
	}
	if s.dispatch != nil {
		s.dispatch.Close()
	}
}
