// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"io"
	"net"
	"testing"
	"time"

	"sluice/config"
)

// With `access_log: nonempty` who came and said nothing leaves no line, whatever
// the backend said and whoever moved it; who sent a byte or wasn't served does.
func TestNonemptyLog(t *testing.T) {
	t.Parallel()
	greets := func(c net.Conn) {
		for range 40 { // apart, so that the session may enter the map
			c.Write([]byte("12345678"))
			time.Sleep(2 * time.Millisecond)
		}
	}
	for _, c := range []struct {
		name   string
		served func(net.Conn)
		client func(*testing.T, net.Conn)
		logged bool
	}{
		{"comes and goes", echo, func(*testing.T, net.Conn) {}, false},
		{"listens only", greets, func(_ *testing.T, c net.Conn) { io.ReadAll(c) }, false},
		{"sends a byte", echo, func(_ *testing.T, c net.Conn) { c.Write([]byte("x")); io.ReadFull(c, make([]byte, 1)) }, true},
		{"talks", echo, func(t *testing.T, c net.Conn) { warm(t, c) }, true},
		{"is refused", nil, func(_ *testing.T, c net.Conn) { io.ReadAll(c) }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			datapathsAtOnce(t, func(t *testing.T, path string) {
				addr := refusing(t)
				if c.served != nil {
					addr = serve(t, c.served)
				}
				r := newRig(t, path, []string{addr}, func(l *config.Listener) { l.AccessLog = config.LogNonempty })
				conn := r.dial()
				c.client(t, conn)
				conn.Close()
				s := r.ended(1)[0]
				r.mu.Lock()
				defer r.mu.Unlock()
				if r.logged[0] != c.logged {
					t.Errorf("a line: %t, record %+v", r.logged[0], s)
				}
				if (c.name == "listens only" || c.name == "talks") && s.Datapath != path {
					t.Errorf("moved on %s", s.Datapath)
				}
			})
		})
	}
}
