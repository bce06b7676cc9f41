// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net"
	"testing"
)

// The kernel's hash deals connections out unevenly; no loop may keep many more
// than another, and each session is counted off where it ends.
func TestLoopsShareSessions(t *testing.T) {
	r := newRigOf(t, "relay", []string{serve(t, echo)}, nil, Options{Loops: 2})
	var conns []net.Conn
	for range 400 {
		c := r.dial()
		defer c.Close()
		if _, err := c.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	total, least, most := int32(0), int32(len(conns)), int32(0)
	for _, l := range r.engine.loops {
		n := l.load.Load()
		total, least, most = total+n, min(least, n), max(most, n)
	}
	if total != int32(len(conns)) || most-least > handOver {
		t.Errorf("%d sessions on %d loops: from %d to %d", total, len(r.engine.loops), least, most)
	}
	for _, c := range conns {
		c.Close()
	}
	r.ended(len(conns))
	r.empty()
	for _, l := range r.engine.loops {
		if n := l.load.Load(); n != 0 {
			t.Errorf("loop %d still counts %d sessions", l.id, n)
		}
	}
}
