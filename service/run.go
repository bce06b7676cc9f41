// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"sluice/config"
	"sluice/internal/caps"
	"sluice/internal/sysfd"
	"sluice/internal/watch"
	"sluice/proxy"
	"sluice/stats"
)

const (
	// reloadGap is the least time between two loads by edits: under a steady
	// stream of them each load is of a newer state, and not all are taken.
	reloadGap = 100 * time.Millisecond
	// busyTick and idleTick are how often housekeeping is done.
	busyTick = time.Second
	idleTick = 5 * time.Second
	// sweepEvery is how often picks that nobody redeemed are deleted.
	sweepEvery = time.Minute
)

// Run serves until it is told to stop: by SIGTERM, SIGINT, or the end of ctx,
// which is as SIGINT. SIGHUP reloads, SIGUSR1 reopens the log. An error means
// that it couldn't start; nothing is left open in any case.
func (s *Service) Run(ctx context.Context, signals <-chan os.Signal) (err error) {
	defer func() {
		s.close()
		s.events.flush()
	}()
	if err := s.start(ctx); err != nil {
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

// start brings everything up; ports are bound last.
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
	c, err := s.firstLoad()
	if err != nil {
		return err
	}
	s.level.setName(c.Log.Level)
	s.loops = c.EventLoops
	s.names = newNames(s.opts.Resolve, s.nameFailed)
	s.names.want(hosts(c))
	s.loadBPF(ctx, limit)
	// Parsing the kernel's types and the self-test leave some MiB of garbage,
	// which nothing would collect for long: serving allocates little.
	debug.FreeOSMemory()
	loops := c.EventLoops
	if loops <= 0 {
		loops = cpus()
	}
	o := proxy.Options{Loops: loops, Log: s.log, Record: s.record, Splice: s.splice, MaxSessionFDs: sessionFDs(limit, c, loops)}
	if s.dispatch != nil {
		o.Dispatch = s.dispatch
	}
	if s.engine, err = proxy.New(o); err != nil {
		return fmt.Errorf("event loops: %w", err)
	}
	s.names.settle(resolveStart)
	s.warnNames(c)
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
func (s *Service) firstLoad() (*config.Config, error) {
	w, err := watch.New(s.opts.ConfigFile)
	if err != nil {
		s.log.Warn().Err(err).Msg("edits of the file are not noticed: send SIGHUP after each")
		return config.ReadFile(s.opts.ConfigFile)
	}
	s.watch = w
	for wait := time.NewTimer(2 * time.Second); ; {
		data, err := w.Read()
		switch {
		case err == nil:
			return config.Load(s.opts.ConfigFile, data)
		case !errors.Is(err, watch.ErrWriting):
			return config.ReadFile(s.opts.ConfigFile) // for its error
		}
		select {
		case <-w.Changed():
		case <-wait.C:
			return nil, fmt.Errorf("%s: it is being written and its writer doesn't close it: start again when it is done", s.opts.ConfigFile)
		}
	}
}

// tellListeners logs a line a listener.
func (s *Service) tellListeners() {
	for _, l := range s.cfg.Listeners {
		e := s.listeners[l.Name]
		var listen []string
		for _, a := range l.Listen {
			listen = append(listen, a.String())
		}
		ev := s.log.Info().Str("listener", l.Name).Strs("listen", listen).Str("pool", l.Pool).Str("datapath", string(e.datapath))
		if e.reason != "" {
			ev = ev.Str("reason", e.reason)
		}
		ev.Msg("listening")
	}
}

func (s *Service) record(r *stats.Session, accessLog bool) {
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
func (s *Service) serve(ctx context.Context, signals <-chan os.Signal) (graceful bool) {
	tick := time.NewTimer(busyTick)
	defer tick.Stop()
	resolve := time.NewTimer(s.nextResolve())
	defer resolve.Stop()
	reload := time.NewTimer(time.Hour) // of an edit that comes soon after another
	reload.Stop()
	defer reload.Stop()
	changed := make(<-chan struct{})
	if s.watch != nil {
		changed = s.watch.Changed()
	}
	asked, swept := false, time.Now() // asked: a SIGHUP waits for a writer's close
	load := func() {
		if wait := time.Until(s.lastLoad.Add(reloadGap)); wait > 0 && !asked {
			reload.Reset(wait)
			return
		}
		asked = s.reload(asked)
		resolve.Reset(s.nextResolve())
		if s.watch != nil && s.watch.Pending() {
			reload.Reset(reloadGap)
		}
	}
	for {
		select {
		case <-ctx.Done():
			return false
		case sig := <-signals:
			switch sig {
			case syscall.SIGTERM:
				return true
			case syscall.SIGINT:
				return false
			case syscall.SIGHUP:
				asked = true
				load()
			case syscall.SIGUSR1:
				s.reopen()
			}
		case <-changed:
			load()
		case <-reload.C:
			load()
		case <-s.names.changed:
			s.applyNames()
		case <-resolve.C:
			resolve.Reset(s.nextResolve())
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
	if len(s.gone) > 0 {
		s.sweepPools()
	}
	if s.dispatch != nil && now.Sub(*swept) >= sweepEvery {
		*swept = now
		s.dispatch.Sweep()
	}
	if s.engine.Sessions() > 0 || len(s.gone) > 0 {
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

// reload takes the file's state over, if it is finished. asked: by a signal,
// so that a missing file is an error; it stays true while a writer is awaited.
func (s *Service) reload(asked bool) (stillAsked bool) {
	data, err := s.read()
	switch {
	case errors.Is(err, watch.ErrWriting):
		return asked // its close comes as a change
	case errors.Is(err, fs.ErrNotExist) && !asked:
		return false // a file that is missing changes nothing
	}
	s.notify(s.opts.Notify.Reloading())
	if err == nil {
		err = s.takeOver(data)
	}
	s.lastLoad = time.Now()
	s.mu.Lock()
	if err != nil {
		s.conf.OK, s.conf.Error = false, err.Error()
		s.reloads.refused++
	} else {
		s.reloads.ok++
	}
	s.mu.Unlock()
	if err != nil {
		s.events.post(event{level: zerolog.ErrorLevel, msg: "reload refused: the old configuration stays", err: err.Error()})
	} else {
		s.events.post(event{level: zerolog.InfoLevel, msg: "reload ok"})
	}
	s.notify(s.opts.Notify.Ready(s.status()))
	if s.opts.AfterReload != nil {
		s.opts.AfterReload(err)
	}
	return false
}

func (s *Service) read() ([]byte, error) {
	if s.watch != nil {
		return s.watch.Read()
	}
	return os.ReadFile(s.opts.ConfigFile)
}

// takeOver is one edit, all or nothing.
func (s *Service) takeOver(data []byte) error {
	c, err := config.Load(s.opts.ConfigFile, data)
	if err != nil {
		return err
	}
	s.names.want(hosts(c))
	ch, err := s.prepare(c)
	if err != nil {
		s.names.want(hosts(s.cfg))
		return err
	}
	before := s.cfg
	s.commit(ch)
	if c.EventLoops != s.loops {
		s.log.Warn().Int("event_loops", c.EventLoops).Int("running", s.loops).Msg("event_loops takes effect at the next start")
	}
	s.tellChanged(before)
	return nil
}

// tellChanged logs a line for each listener that is new or has other settings
// that a reader of the log would look for.
func (s *Service) tellChanged(before *config.Config) {
	old := map[string]*config.Listener{}
	for _, l := range before.Listeners {
		old[l.Name] = l
	}
	for _, l := range s.cfg.Listeners {
		if o := old[l.Name]; o == nil || o.Datapath != l.Datapath || !sameAddresses(o.Listen, l.Listen) {
			e := s.listeners[l.Name]
			ev := s.log.Info().Str("listener", l.Name).Str("datapath", string(e.datapath))
			if e.reason != "" {
				ev = ev.Str("reason", e.reason)
			}
			ev.Msg("listening")
		}
	}
}

func sameAddresses(a, b []config.Address) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
