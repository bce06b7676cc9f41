// SPDX-License-Identifier: Apache-2.0

package grpc

import (
	"slices"
	"sync/atomic"
)

// work is what a goroutine has put into links and not seen to yet: they are
// written at the end of its round, so that what belongs together goes out in one
// write. It belongs to one goroutine.
type work struct {
	dirty []*link
	fewer []*link // those that have lost a stream
}

// freed has l's side told, when no lock is held, that a stream has gone.
func (w *work) freed(l *link) {
	if !slices.Contains(w.fewer, l) {
		w.fewer = append(w.fewer, l)
	}
}

// add has l written by the next flush.
func (w *work) add(l *link) {
	if !slices.Contains(w.dirty, l) {
		w.dirty = append(w.dirty, l)
	}
}

// flush writes what there is, as far as sockets have room; elsewhere a goroutine
// goes on. No lock is to be held.
func (w *work) flush() {
	for len(w.dirty)+len(w.fewer) > 0 {
		if n := len(w.fewer) - 1; n >= 0 {
			l := w.fewer[n]
			w.fewer[n] = nil
			w.fewer = w.fewer[:n]
			l.side.freed(w)
			continue
		}
		n := len(w.dirty) - 1
		l := w.dirty[n]
		w.dirty[n] = nil
		w.dirty = w.dirty[:n]
		l.flush(w)
	}
}

// counter is a number of bytes that anybody may read.
type counter struct{ n atomic.Uint64 }

func (c *counter) add(n int)   { c.n.Add(uint64(n)) }
func (c *counter) get() uint64 { return c.n.Load() }
