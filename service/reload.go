// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/rs/zerolog"

	"sluice/config"
	"sluice/internal/watch"
)

// reloadGap is the least time between two loads by edits: under a steady
// stream of them each load is of a newer state, and not all are taken.
const reloadGap = 100 * time.Millisecond

// edits is when the file is read. It is read on a goroutine of its own, one
// state at a time: a file system that doesn't answer must not keep signals
// waiting. All else is for Run's goroutine.
type edits struct {
	s       *Service
	changed <-chan struct{} // by the watch
	later   *time.Timer     // for an edit that comes soon after another
	loaded  chan loadedFile
	loading bool
	asked   bool // by a SIGHUP, which may wait for a writer's close
	last    time.Time

	// What came while a state was read, which may be older.
	again, askedAgain bool
}

// loadedFile is a state of the file; unread: why it couldn't be read.
type loadedFile struct {
	c      *config.Config
	err    error
	unread error
}

func (s *Service) newEdits() *edits {
	e := &edits{s: s, later: time.NewTimer(time.Hour), loaded: make(chan loadedFile, 1)}
	e.later.Stop()
	if s.watch != nil {
		e.changed = s.watch.Changed()
	}
	return e
}

func (e *edits) stop() { e.later.Stop() }

// ask loads the file because somebody says so.
func (e *edits) ask() {
	if e.loading {
		e.again, e.askedAgain = true, true
		return
	}
	e.asked = true
	e.load()
}

// load begins to load the file, now or when it may.
func (e *edits) load() {
	if e.loading {
		e.again = true
		return
	}
	if wait := time.Until(e.last.Add(reloadGap)); wait > 0 && !e.asked {
		e.later.Reset(wait)
		return
	}
	e.loading = true
	go func(s *Service) { e.loaded <- s.loadFile() }(e.s)
}

// take has a state that was loaded taken over.
func (e *edits) take(f loadedFile) {
	e.loading = false
	e.judge(f)
	if e.again {
		e.asked = e.asked || e.askedAgain
		e.again, e.askedAgain = false, false
		e.load()
	} else if e.s.watch != nil && e.s.watch.Pending() {
		e.later.Reset(reloadGap)
	}
}

// judge tells a finished state from none.
func (e *edits) judge(f loadedFile) {
	if errors.Is(f.unread, watch.ErrWriting) {
		return // its close comes as a change
	}
	asked := e.asked
	e.asked = false
	if errors.Is(f.unread, fs.ErrNotExist) && !asked {
		return // a file that is missing changes nothing
	}
	e.s.reload(f)
	e.last = time.Now()
}

func (s *Service) loadFile() (f loadedFile) {
	var data []byte
	if s.watch != nil {
		data, f.unread = s.watch.Read()
	} else {
		data, f.unread = os.ReadFile(s.opts.ConfigFile)
	}
	if f.err = f.unread; f.err == nil {
		f.c, f.err = config.Load(s.opts.ConfigFile, data)
	}
	return f
}

// reload takes a state of the file over, or tells why not.
func (s *Service) reload(f loadedFile) {
	s.notify(s.opts.Notify.Reloading())
	err := f.err
	if err == nil {
		err = s.takeOver(f.c)
	}
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
}

// takeOver is one edit, all or nothing.
func (s *Service) takeOver(c *config.Config) error {
	// Until it is accepted an edit only adds names: the answers for those of
	// the old file are in force.
	s.names.add(hosts(c))
	defer func() { s.names.keep(hosts(s.cfg)) }()
	ch, err := s.prepare(c)
	if err != nil {
		return err
	}
	s.commit(ch)
	if c.EventLoops != s.loops {
		s.log.Warn().Int("event_loops", c.EventLoops).Int("running", s.sockets).Msg("event_loops takes effect at the next start")
	}
	if !c.Forward.Equal(s.forwardConf) {
		s.log.Warn().Msg("forward takes effect at the next start")
	}
	s.tellListeners()
	return nil
}
