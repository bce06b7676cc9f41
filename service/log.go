// SPDX-License-Identifier: Apache-2.0

package service

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// levelWriter filters by a level that an edit of the file can change; loggers
// are values, and those handed out before couldn't be told.
type levelWriter struct {
	out   zerolog.LevelWriter
	level atomic.Int32
}

func (w *levelWriter) set(l zerolog.Level) { w.level.Store(int32(l)) }

// setName takes a level as the file names it.
func (w *levelWriter) setName(name string) {
	if l, err := zerolog.ParseLevel(name); err == nil {
		w.set(l)
	}
}

func (w *levelWriter) Write(p []byte) (int, error) { return w.out.Write(p) }

func (w *levelWriter) WriteLevel(l zerolog.Level, p []byte) (int, error) {
	if int32(l) < w.level.Load() {
		return len(p), nil
	}
	return w.out.WriteLevel(l, p)
}

// eventGap is how often the same event is logged at most.
const eventGap = time.Second

// event is something that may happen very often.
type event struct {
	level   zerolog.Level
	msg     string
	pool    string
	backend string
	err     string
}

// key leaves the error out: the same thing failing in changing ways is still
// the same event.
func (e event) key() event {
	return event{level: e.level, msg: e.msg, pool: e.pool, backend: e.backend}
}

// eventLog writes each event at most once a second, with a count of how often
// it happened. The first is written at once. It writes on a goroutine of its
// own, so that an event loop never waits for whoever reads the log.
type eventLog struct {
	log zerolog.Logger

	mu      sync.Mutex
	seen    map[event]*seenEvent
	order   []*seenEvent // waiting to be written
	running bool
	idle    *sync.Cond
}

type seenEvent struct {
	event
	last  time.Time // written
	count int       // since
}

func newEventLog(log zerolog.Logger) *eventLog {
	l := &eventLog{log: log, seen: map[event]*seenEvent{}}
	l.idle = sync.NewCond(&l.mu)
	return l
}

func (l *eventLog) post(e event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := e.key()
	s := l.seen[k]
	if s == nil {
		s = &seenEvent{}
		l.seen[k] = s
	}
	s.event = e
	if s.count++; s.count == 1 {
		l.order = append(l.order, s)
	}
	if !l.running {
		l.running = true
		go l.write()
	}
}

// write writes what is due, waits for what isn't, and ends a second after the
// last event, forgetting it.
func (l *eventLog) write() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		now := time.Now()
		var later []*seenEvent
		due := l.order
		l.order = nil
		for _, s := range due {
			if now.Sub(s.last) < eventGap {
				later = append(later, s)
				continue
			}
			count := s.count
			s.count, s.last = 0, now
			e := s.event
			l.mu.Unlock()
			l.emit(e, count)
			l.mu.Lock()
		}
		l.order = append(later, l.order...)
		next := eventGap
		for k, s := range l.seen {
			left := eventGap - time.Since(s.last)
			if left <= 0 && s.count == 0 {
				delete(l.seen, k)
				continue
			}
			next = min(next, max(left, 0))
		}
		if len(l.seen) == 0 {
			l.running = false
			l.idle.Broadcast()
			return
		}
		l.mu.Unlock()
		time.Sleep(max(next, time.Millisecond))
		l.mu.Lock()
	}
}

// flush writes what waits, at the end.
func (l *eventLog) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.order {
		if s.count > 0 {
			l.emit(s.event, s.count)
			s.count = 0
		}
	}
	l.order = nil
}

func (l *eventLog) emit(e event, count int) {
	ev := l.log.WithLevel(e.level)
	if e.pool != "" {
		ev = ev.Str("pool", e.pool)
	}
	if e.backend != "" {
		ev = ev.Str("backend", e.backend)
	}
	if e.err != "" {
		ev = ev.Str("error", e.err)
	}
	ev.Int("count", count).Msg(e.msg)
}
