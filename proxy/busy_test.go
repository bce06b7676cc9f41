// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// mapped is how many live sessions are in the map.
func (r *rig) mapped() (n int) {
	for _, l := range r.engine.loops {
		l.call(func() { n += l.moving })
	}
	return n
}

// chorus is a backend that answers its connections' messages of each of the
// first turns only when that turn's gate is open: then all at once.
type chorus struct {
	gates              []chan struct{}
	received, answered atomic.Int64
}

func (h *chorus) serve(c net.Conn) {
	b := make([]byte, 8)
	for turn := 0; ; turn++ {
		if _, err := io.ReadFull(c, b); err != nil {
			return
		}
		h.received.Add(1)
		if turn < len(h.gates) {
			<-h.gates[turn]
		}
		if _, err := c.Write(b); err != nil {
			return
		}
		h.answered.Add(1)
	}
}

func waitFor(t *testing.T, n *atomic.Int64, want int) {
	for end := time.Now().Add(10 * time.Second); n.Load() < int64(want); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("%d messages, want %d", n.Load(), want)
			return
		}
	}
}

// A loop that finds many events at each wake keeps its sessions (rule 11); the
// same sessions enter the map once there is less to do.
func TestBusyLoopKeepsItsSessions(t *testing.T) {
	needSplice(t)
	h := &chorus{}
	for range mapTurns {
		h.gates = append(h.gates, make(chan struct{}))
	}
	r := newRigOf(t, "splice", []string{serve(t, h.serve)}, nil, Options{Loops: 1, MapBatch: mapBatch})
	conns := make([]net.Conn, 48)
	for i := range conns {
		conns[i] = r.dial()
		defer conns[i].Close()
	}
	// As on a saturated box, the loop comes round only when all have spoken,
	// and again when all have been answered.
	l, b := r.engine.loops[0], make([]byte, 8)
	for turn, gate := range h.gates {
		all := (turn + 1) * len(conns)
		l.call(func() {
			for _, c := range conns {
				if _, err := c.Write(b); err != nil {
					t.Error(err)
				}
			}
		})
		waitFor(t, &h.received, all)
		l.call(func() {
			close(gate)
			waitFor(t, &h.answered, all)
		})
		for _, c := range conns {
			if _, err := io.ReadFull(c, b); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := r.mapped(); n > 0 {
		t.Errorf("%d of %d sessions of a busy loop are in the map", n, len(conns))
	}
	warm(t, conns[0])
	warm(t, conns[0])
	if n := r.mapped(); n != 1 {
		t.Errorf("%d sessions are in the map after the loop has had one to do, want 1", n)
	}
}
