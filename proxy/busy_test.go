// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"io"
	"net"
	"testing"
	"time"
)

// mapped is how many live sessions are in the map.
func (r *rig) mapped() (n int) {
	for _, l := range r.engine.loops {
		l.call(func() { n += l.spliced })
	}
	return n
}

// A loop that finds many events at each wake keeps its sessions (rule 11); the
// same sessions enter the map once there is less to do.
func TestBusyLoopKeepsItsSessions(t *testing.T) {
	needSplice(t)
	r := newRigOf(t, "splice", []string{serve(t, echo)}, nil, Options{Loops: 1, MapBatch: mapBatch})
	conns := make([]net.Conn, 48)
	for i := range conns {
		conns[i] = r.dial()
		defer conns[i].Close()
	}
	// As on a saturated box, the loop comes round only when all have spoken,
	// and again when all have been answered.
	l, b := r.engine.loops[0], make([]byte, 8)
	for range mapTurns {
		l.call(func() {
			for _, c := range conns {
				if _, err := c.Write(b); err != nil {
					t.Error(err)
				}
			}
		})
		l.call(func() { time.Sleep(5 * time.Millisecond) })
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
