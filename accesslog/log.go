// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"sluice/config"
)

// closeLimit is the longest that Close takes.
const closeLimit = 5 * time.Second

// Log writes one line for each ended session, in the order of Write. All
// methods may be called from several goroutines.
type Log struct {
	log    zerolog.Logger
	counts logCounts

	// write orders the lines: they are stamped, formatted and queued under it.
	write  sync.Mutex
	format *formatter
	sink   *sink // nil: nothing is logged
	lost   bool  // closed while it had a sink: what still comes is dropped

	// admin serialises changes; it is taken before write, never by Write.
	admin   sync.Mutex
	cfg     *config.AccessLog // nil: none
	retired []*sink           // that may still be writing
	closed  bool
}

// Open opens the log that cfg names and starts its writer. With a nil
// cfg it writes nothing, until a change. The caller closes it. The error says
// why the file can't be opened, or what is wrong with the format.
func Open(cfg *config.AccessLog, log zerolog.Logger) (*Log, error) {
	l := &Log{log: log}
	change, err := l.Prepare(cfg)
	if err != nil {
		return nil, err
	}
	change.Commit()
	return l, nil
}

// Write stamps the session's line with the present time and queues it. It keeps
// nothing of s and never waits for a disk or a reader.
func (l *Log) Write(s *Record) {
	l.write.Lock()
	defer l.write.Unlock()
	if l.sink == nil {
		if l.lost {
			l.counts.dropped.Add(1)
		}
		return
	}
	l.format.clock.set(time.Now())
	l.sink.put(l.format, s)
}

// Lines is the number of whole lines written since the log was opened.
func (l *Log) Lines() uint64 { return l.counts.lines.Load() }

// Dropped is the number of lines that could not be written.
func (l *Log) Dropped() uint64 { return l.counts.dropped.Load() }

// Reopen opens the log's path again, after a rotation. On an error the old file
// stays in use.
func (l *Log) Reopen() error {
	l.admin.Lock()
	defer l.admin.Unlock()
	if l.closed || l.cfg == nil || l.cfg.Path == stdoutPath {
		return nil
	}
	out, err := openOutput(l.cfg.Path)
	if err != nil {
		return err
	}
	l.use(out, l.cfg, nil)
	return nil
}

// Change is a change of the access log that is ready but not in force.
// Exactly one of Commit and Discard is to be called.
type Change struct {
	log    *Log
	cfg    *config.AccessLog
	out    *output    // nil: the file stays as it is
	format *formatter // nil: no log any more
}

// Prepare does what can fail of a change to cfg, nil being no log: it compiles
// the format and opens the file, if they are others than now.
func (l *Log) Prepare(cfg *config.AccessLog) (*Change, error) {
	c := &Change{log: l}
	if cfg == nil {
		return c, nil
	}
	own := *cfg
	c.cfg = &own
	var err error
	if c.format, err = newFormatter(own.Format); err != nil {
		return nil, err
	}
	l.admin.Lock()
	defer l.admin.Unlock()
	if l.cfg != nil && l.cfg.Path == own.Path {
		return c, nil
	}
	if c.out, err = openOutput(own.Path); err != nil {
		return nil, err
	}
	return c, nil
}

// Commit puts the change in force: what is written from now on goes to the new
// file in the new format, what was written before to the old one.
func (c *Change) Commit() {
	l := c.log
	l.admin.Lock()
	defer l.admin.Unlock()
	switch {
	case l.closed:
		c.Discard()
	case c.cfg == nil:
		l.swap(nil, nil)
		l.cfg = nil
	case c.out != nil:
		l.use(c.out, c.cfg, c.format)
	default:
		l.write.Lock()
		l.format = c.format
		l.write.Unlock()
		l.cfg = c.cfg
	}
}

// Discard closes what Prepare has opened, and removes a file that it has made.
func (c *Change) Discard() {
	if c.out != nil {
		c.out.unmake(c.cfg.Path)
		c.out.close()
	}
}

// use makes out the file that is written, format nil meaning the present one.
// The caller holds admin.
func (l *Log) use(out *output, cfg *config.AccessLog, format *formatter) {
	var after []*sink
	for _, s := range l.sinks() {
		if s.out.same(out) {
			after = append(after, s)
		}
	}
	l.swap(newSink(out, cfg.Path, &l.counts, l.log, after), format)
	l.cfg = cfg
}

// sinks are all that may still be writing. The caller holds admin.
func (l *Log) sinks() []*sink {
	l.retired = slices.DeleteFunc(l.retired, func(s *sink) bool {
		select {
		case <-s.done:
			return true
		default:
			return false
		}
	})
	l.write.Lock()
	defer l.write.Unlock()
	if l.sink == nil {
		return slices.Clone(l.retired)
	}
	return append(slices.Clone(l.retired), l.sink)
}

// swap puts s in the place of the sink, which is retired. The caller holds admin.
func (l *Log) swap(s *sink, format *formatter) {
	l.write.Lock()
	old := l.sink
	l.sink = s
	if format != nil {
		l.format = format
	}
	l.write.Unlock()
	if old != nil {
		old.retire()
		l.retired = append(l.retired, old)
	}
}

// Close writes what is queued and closes the file. It takes 5 s at most, also
// if nobody reads; what isn't written by then is dropped. A line that is
// written after Close is dropped and counted.
func (l *Log) Close() error {
	l.admin.Lock()
	defer l.admin.Unlock()
	l.closed = true
	l.write.Lock()
	l.lost = l.lost || l.sink != nil
	l.write.Unlock()
	l.swap(nil, nil)
	limit := time.NewTimer(closeLimit)
	defer limit.Stop()
	for _, s := range l.sinks() {
		select {
		case <-s.done:
		case <-limit.C:
			return nil // in the kernel's hands
		}
	}
	return nil
}
