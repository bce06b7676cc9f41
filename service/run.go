// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"sluice/accesslog"
	"sluice/config"
	"sluice/grpc"
	"sluice/internal/caps"
	"sluice/internal/sysfd"
	"sluice/internal/watch"
	"sluice/proxy"
	"sluice/session"
)

const (
	// flushTime is how long the end waits for who reads the own log.
	flushTime = 2 * time.Second
	// busyTick and idleTick are how often housekeeping is done.
	busyTick = time.Second
	idleTick = 5 * time.Second
	// sweepEvery is how often picks that nobody redeemed are deleted.
	sweepEvery = time.Minute
)

// Run serves until it is told to stop: by SIGTERM, SIGQUIT, SIGINT, or the end
// of ctx, which is as SIGINT. SIGHUP reloads, SIGUSR1 reopens the log; signals
// may be nil. An error means that it couldn't start; nothing is left open in
// any case.
func (s *Service) Run(ctx context.Context, signals *Signals) (err error) {
	if signals == nil {
		signals = NewSignals()
	}
	defer func() {
		s.close()
		s.events.flush()
		s.queue.flush(flushTime)
	}()
	if ended, err := s.startUnless(ctx, signals); err != nil || ended {
		return err
	}
	close(s.ready)
	s.notify(s.opts.Notify.Ready(s.status()))
	if graceful := s.serve(ctx, signals); graceful {
		s.drain(ctx, signals)
	} else {
		s.stop()
	}
	return nil
}

// startUnless starts. It gives up, without an error, when it is told to end
// meanwhile: a start may take seconds.
func (s *Service) startUnless(outer context.Context, signals *Signals) (ended bool, err error) {
	ctx, cancel := context.WithCancel(outer)
	defer cancel()
	watched, started := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-signals.end:
			ended = true
			cancel()
		case <-started:
		}
	}()
	err = s.start(ctx)
	close(started)
	<-watched
	if ended || outer.Err() != nil {
		return true, nil
	}
	return false, err
}

// start brings everything up; ports are bound last. The end of ctx ends it.
func (s *Service) start(ctx context.Context) error {
	limit, err := sysfd.Raise()
	if err != nil {
		s.log.Warn().Err(err).Msg("few descriptors")
	}
	if !s.opts.Unprivileged {
		if err := caps.DropFileOverride(); err != nil {
			return err
		}
	}
	c, err := s.firstLoad(ctx)
	if err != nil {
		return err
	}
	s.level.setName(c.Log.Level)
	s.loops = c.EventLoops
	s.names = newNames(s.opts.Resolve, s.nameFailed)
	s.names.add(hosts(c))
	s.loadBPF(ctx, limit)
	if err := s.openRaw(ctx, c); err != nil {
		return err
	}
	// Parsing the kernel's types and the self-test leave some MiB of garbage,
	// which nothing would collect for long: serving allocates little.
	debug.FreeOSMemory()
	loops := c.EventLoops
	if loops <= 0 {
		loops = cpus()
	}
	so := session.Options{Record: s.record}
	if s.dispatch != nil {
		so.Dispatch = s.dispatch
	}
	s.sessions = session.NewRegistry(so)
	s.sockets = loops
	o := proxy.Options{Loops: loops, Log: s.log, Sessions: s.sessions, Splice: s.splice, Calls: s.takeCalls}
	if s.engine, err = proxy.New(o); err != nil {
		return fmt.Errorf("event loops: %w", err)
	}
	s.calls = grpc.New(grpc.Options{Log: s.log, Sessions: s.sessions, Descriptors: s.engine})
	s.carriers = carriers{s.engine, s.calls}
	s.fds = int(min(limit, maxFDs)) - keptBack - openFDs()
	s.names.settle(ctx, resolveStart)
	s.warnNames(c)
	if err := ctx.Err(); err != nil {
		return err
	}
	ch, err := s.prepare(c)
	if err != nil {
		return err
	}
	s.commit(ch)
	if !s.opts.Unprivileged {
		if err := caps.Drop(caps.Needed()...); err != nil {
			return fmt.Errorf("giving up privileges: %w", err)
		}
	}
	s.tellListeners()
	return nil
}

// firstLoad reads the file at start, watching it from before.
func (s *Service) firstLoad(ctx context.Context) (*config.Config, error) {
	type first struct {
		w   *watch.Watcher
		c   *config.Config
		err error
	}
	read := make(chan first, 1) // of a file system that may not answer
	go func() {
		w, err := watch.New(s.opts.ConfigFile)
		if err != nil {
			s.log.Warn().Err(err).Msg("edits of the file are not noticed: send SIGHUP after each")
			c, err := config.ReadFile(s.opts.ConfigFile)
			read <- first{nil, c, err}
			return
		}
		c, err := readFinished(ctx, w, s.opts.ConfigFile)
		read <- first{w, c, err}
	}()
	select {
	case f := <-read:
		s.watch = f.w
		return f.c, f.err
	case <-ctx.Done():
		go func() {
			if f := <-read; f.w != nil {
				f.w.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

// writerTime is how long a start waits for whoever is writing the file.
const writerTime = 2 * time.Second

// readFinished reads the file when nobody writes it.
func readFinished(ctx context.Context, w *watch.Watcher, file string) (*config.Config, error) {
	for wait := time.After(writerTime); ; {
		data, err := w.Read()
		switch {
		case err == nil:
			return config.Load(file, data)
		case !errors.Is(err, watch.ErrWriting):
			return config.ReadFile(file) // for its error
		}
		select {
		case <-w.Changed():
		case <-wait:
			return nil, fmt.Errorf("%s: it is being written and its writer doesn't close it: start again when it is done", file)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *Service) record(r *accesslog.Record, accessLog bool) {
	if accessLog {
		s.accessLog.Write(r)
	}
}

func (s *Service) status() string {
	return fmt.Sprintf("%d listeners, %d pools", len(s.cfg.Listeners), len(s.cfg.Pools))
}

func (s *Service) notify(err error) {
	if err != nil {
		s.log.Warn().Err(err).Msg("the service manager can't be told")
	}
}

// serve is the life between start and stop. It says whether sessions may end
// by themselves.
func (s *Service) serve(ctx context.Context, signals *Signals) (graceful bool) {
	tick := time.NewTimer(busyTick)
	defer tick.Stop()
	resolve := time.NewTimer(s.nextResolve())
	defer resolve.Stop()
	edits := s.newEdits()
	defer edits.stop()
	swept := time.Now()
	for {
		select {
		case <-ctx.Done():
			return false
		case sig := <-signals.end:
			return sig != syscall.SIGINT
		case <-signals.reload:
			edits.ask()
		case <-signals.reopen:
			s.reopen()
		case <-edits.changed:
			edits.load()
		case <-edits.later.C:
			edits.load()
		case f := <-edits.loaded:
			edits.take(f)
			resolve.Reset(s.nextResolve())
		case <-s.names.changed:
			s.applyNames()
		case <-resolve.C:
			resolve.Reset(s.nextResolve())
		case <-s.cuts.C:
			s.cutRemoved()
		case <-tick.C:
			tick.Reset(s.housekeeping(&swept))
		}
	}
}

// nextResolve asks for names whose answers are old, and says when to again.
func (s *Service) nextResolve() time.Duration {
	if d := s.names.refresh(); d > 0 {
		return d
	}
	return time.Hour
}

// housekeeping says when it wants to be called again.
func (s *Service) housekeeping(swept *time.Time) time.Duration {
	now := time.Now()
	for _, e := range s.pools {
		e.pool.Tick(now)
	}
	s.sweepListeners(now)
	if len(s.gone) > 0 {
		s.cutRemoved() // who was accepted before its pool went may have come since
		s.sweepPools()
	}
	if s.dispatch != nil && now.Sub(*swept) >= sweepEvery {
		*swept = now
		s.dispatch.Sweep()
	}
	s.checkOffload()
	s.dropOffload()
	if s.sessions.Live() > 0 || len(s.gone)+len(s.left) > 0 || s.offload != nil && !wantsOffload(s.cfg) {
		return busyTick
	}
	return idleTick
}

// reopen opens the access log's path anew, as after a rotation.
func (s *Service) reopen() {
	if err := s.accessLog.Reopen(); err != nil {
		s.events.post(event{level: zerolog.ErrorLevel, msg: "log not reopened: the old file stays", err: err.Error()})
		return
	}
	s.events.post(event{level: zerolog.InfoLevel, msg: "log reopened"})
}
