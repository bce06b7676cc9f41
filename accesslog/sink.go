// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

const (
	// maxQueue bounds the bytes that wait for the file, those being written
	// included. Lines beyond are dropped.
	maxQueue = 4 << 20
	// keepQueue is what a buffer may keep of its memory when it is empty.
	keepQueue = 1 << 20
	// early is how many bytes are written without gathering more.
	early = 256 << 10
	// gather is how long lines are collected before a write; they are to be in
	// the file within 200 ms.
	gather = 20 * time.Millisecond
	// patience is how long a sink that is given up waits for room.
	patience = 4500 * time.Millisecond
)

// logCounts are an access log's counters, over all its files.
type logCounts struct{ lines, dropped atomic.Uint64 }

// sink is one open file with its queue and the goroutine that writes it.
type sink struct {
	out    *output
	path   string
	counts *logCounts
	log    zerolog.Logger
	wake   chan struct{} // a queue that was empty isn't any more
	enough chan struct{} // the queue has reached early
	stop   chan struct{} // closed by retire
	done   chan struct{} // closed when all is written or given up, and the file closed
	once   sync.Once
	until  atomic.Int64 // set by retire: unix nanoseconds, when waiting for room ends

	mu       sync.Mutex
	queue    []byte // begins with a line break, then whole lines; or empty
	lines    int    // in queue
	inFlight int    // bytes that the writer has taken

	// The writer's own.
	spare  []byte
	broken bool // the file ends in the midst of a line that can't be cut back
	report report
}

// newSink starts the writer. It writes nothing before all of after are done, so
// that lines of a file that is opened again stay in their order.
func newSink(out *output, path string, counts *logCounts, log zerolog.Logger, after []*sink) *sink {
	s := &sink{
		out: out, path: path, counts: counts, log: log,
		wake: make(chan struct{}, 1), enough: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	s.report = report{log: log, path: path, told: counts.dropped.Load()}
	go s.run(after)
	return s
}

// put queues a line. It never waits for the file.
func (s *sink) put(f *formatter, rec *Record) {
	s.mu.Lock()
	if len(s.queue) == 0 {
		s.queue = append(s.queue, '\n')
	}
	old := len(s.queue)
	s.queue = f.append(s.queue, rec)
	if len(s.queue)+s.inFlight > maxQueue {
		s.queue = s.queue[:old]
		s.mu.Unlock()
		s.counts.dropped.Add(1)
		return
	}
	s.lines++
	first, enough := s.lines == 1, old < early && len(s.queue) >= early
	s.mu.Unlock()
	if first {
		signal(s.wake)
	}
	if enough {
		signal(s.enough)
	}
}

// signal leaves a token, unless there is one already.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// retire has the writer write what is queued and close the file. Nothing may be
// put any more. It doesn't wait: done tells.
func (s *sink) retire() {
	s.once.Do(func() {
		s.until.Store(time.Now().Add(patience).UnixNano())
		close(s.stop)
	})
}

func (s *sink) run(after []*sink) {
	defer close(s.done)
	defer s.out.close()
	for _, old := range after {
		select {
		case <-old.done:
		case <-time.After(patience): // a disk that hangs
		}
	}
	timer := time.NewTimer(0)
	<-timer.C
	for stopping := false; !stopping; {
		select {
		case <-s.wake:
			timer.Reset(gather)
			select {
			case <-timer.C:
			case <-s.enough:
			case <-s.stop:
				stopping = true
			}
		case <-s.stop:
			stopping = true
		}
		s.flush()
	}
}

// flush writes what is queued.
func (s *sink) flush() {
	s.mu.Lock()
	batch, lines := s.queue, s.lines
	s.queue, s.spare = s.spare[:0], nil
	s.lines, s.inFlight = 0, len(batch)
	s.mu.Unlock()
	if lines > 0 {
		s.writeBatch(batch)
	}
	if cap(batch) > keepQueue {
		batch = nil
	}
	s.mu.Lock()
	s.inFlight = 0
	s.mu.Unlock()
	s.spare = batch[:0]
}

// remaining is how long the writer may still wait for room.
func (s *sink) remaining() time.Duration {
	const tick = time.Second
	until := s.until.Load()
	if until == 0 {
		return tick
	}
	return min(tick, time.Until(time.Unix(0, until)))
}
