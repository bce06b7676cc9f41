// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"bytes"
	"errors"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// pipeChunk is PIPE_BUF: a pipe takes so much whole, and has room for it
// whenever poll(2) says that it can be written.
const pipeChunk = 4096

// writeBatch writes the lines of b, which follow a line break at its start.
// Those that can't be written are dropped.
func (s *sink) writeBatch(b []byte) {
	for at := 1; at < len(b); {
		end := len(b)
		if !s.out.regular {
			end = at + chunkLen(b[at:])
		}
		err := s.writeLines(b, at, end)
		if err != nil {
			// No room for a line is no room for those behind it.
			s.drop(b[end:])
			s.report.failed(err, s.counts.dropped.Load())
			return
		}
		at = end
	}
	s.report.worked(s.counts.dropped.Load())
}

// chunkLen is the length of as many whole lines as a pipe takes at once, but
// one at least.
func chunkLen(b []byte) int {
	if len(b) <= pipeChunk {
		return len(b)
	}
	if n := bytes.LastIndexByte(b[:pipeChunk], '\n'); n >= 0 {
		return n + 1
	}
	return bytes.IndexByte(b, '\n') + 1
}

// writeLines writes b[from:to], whole lines, and counts them. After an error
// the rest has been counted as dropped, and the file ends with a whole line or
// is known as broken.
func (s *sink) writeLines(b []byte, from, to int) error {
	at := from
	if s.broken {
		at-- // the line break before
	}
	for at < to {
		n, err := s.out.write(b[at:to])
		if n > 0 {
			s.broken = false
			at += n
			continue
		}
		if errors.Is(err, unix.EAGAIN) {
			if err = s.waitForRoom(); err == nil {
				continue
			}
		}
		start := max(bytes.LastIndexByte(b[:at], '\n')+1, from)
		s.counts.lines.Add(uint64(bytes.Count(b[from:start], []byte{'\n'})))
		s.drop(b[start:to])
		if torn := at - start; torn > 0 && !s.out.cut(torn) {
			s.broken = true
		}
		return err
	}
	s.counts.lines.Add(uint64(bytes.Count(b[from:to], []byte{'\n'})))
	return nil
}

// errNoRoom is for a file that takes nothing until the log is closed.
var errNoRoom = errors.New("nobody reads it")

// waitForRoom waits without an end, but for the one that retire sets.
func (s *sink) waitForRoom() error {
	for {
		left := s.remaining()
		if left <= 0 {
			return errNoRoom
		}
		if s.out.writable(left) {
			return nil
		}
		s.report.waiting(s.counts.dropped.Load())
	}
}

func (s *sink) drop(lines []byte) {
	s.counts.dropped.Add(uint64(bytes.Count(lines, []byte{'\n'})))
}

// report tells the operator of lost lines, once a second at most.
type report struct {
	log  zerolog.Logger
	path string
	last time.Time
	told uint64 // lines dropped, as told last
	bad  bool
}

func (r *report) failed(err error, dropped uint64) {
	r.bad = true
	r.tell(err, dropped)
}

// waiting is for a file that has no room now.
func (r *report) waiting(dropped uint64) {
	if dropped > r.told {
		r.failed(errors.New("it takes no more"), dropped)
	}
}

func (r *report) worked(dropped uint64) {
	if dropped > r.told {
		r.tell(errors.New("it was too slow or full"), dropped)
	}
	if r.bad && time.Since(r.last) >= time.Second {
		r.bad = false
		r.log.Info().Str("path", r.path).Msg("access log is written again")
	}
}

func (r *report) tell(err error, dropped uint64) {
	if now := time.Now(); now.Sub(r.last) >= time.Second {
		r.log.Error().Err(err).Str("path", r.path).Uint64("dropped", dropped-r.told).
			Msg("access log lines can't be written and are dropped; give the file room, or another path")
		r.last, r.told = now, dropped
	}
}
