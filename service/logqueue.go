// SPDX-License-Identifier: Apache-2.0

package service

import (
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// maxQueued bounds the lines of the own log that wait to be written, in bytes.
const maxQueued = 1 << 20

// logQueue writes the own log on a goroutine of its own, which is there while
// lines wait: whoever reads stderr may be slow, or have stopped, and neither an
// event loop nor what serves signals may wait for it. Lines beyond maxQueued
// are dropped, and their number is told when there is room again.
type logQueue struct {
	out zerolog.LevelWriter

	mu      sync.Mutex
	lines   []logLine
	size    int // bytes, of lines and of those that are being written
	dropped uint64
	idle    chan struct{} // closed when nothing waits; nil: nothing does
}

type logLine struct {
	level zerolog.Level
	text  []byte
}

func newLogQueue(out zerolog.LevelWriter) *logQueue { return &logQueue{out: out} }

// Write implements io.Writer.
func (q *logQueue) Write(p []byte) (int, error) { return q.WriteLevel(zerolog.NoLevel, p) }

// WriteLevel never waits and always succeeds.
func (q *logQueue) WriteLevel(level zerolog.Level, p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.size+len(p) > maxQueued {
		q.dropped++
		return len(p), nil
	}
	q.lines = append(q.lines, logLine{level, slices.Clone(p)})
	q.size += len(p)
	if q.idle == nil {
		q.idle = make(chan struct{})
		go q.write()
	}
	return len(p), nil
}

// write writes until nothing waits. A line that can't be written is lost, as
// there is nowhere to say so.
func (q *logQueue) write() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.lines) > 0 || q.dropped > 0 {
		lines, dropped := q.lines, q.dropped
		q.lines, q.dropped = nil, 0
		q.mu.Unlock()
		size := 0
		for _, l := range lines {
			_, _ = q.out.WriteLevel(l.level, l.text)
			size += len(l.text)
		}
		if dropped > 0 {
			log := zerolog.New(q.out).With().Timestamp().Logger()
			log.Warn().Uint64("lines", dropped).Msg("lines of this log were dropped: its reader is too slow")
		}
		q.mu.Lock()
		q.size -= size
	}
	close(q.idle)
	q.idle = nil
}

// flush waits until all is written, limit at most.
func (q *logQueue) flush(limit time.Duration) {
	q.mu.Lock()
	idle := q.idle
	q.mu.Unlock()
	if idle == nil {
		return
	}
	select {
	case <-idle:
	case <-time.After(limit):
	}
}
