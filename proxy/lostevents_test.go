// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/accesslog"
	"sluice/internal/needs"
	"sluice/internal/netrig"
)

// deafen has the engine hear nothing of what the forward program tells, for the rest of
// the test.
func (r *rig) deafen() {
	r.t.Helper()
	o, first := r.engine.offload.Load(), r.engine.loops[0]
	fd := int32(o.Forward.Announcements())
	first.call(func() { first.deregister(fd, o.handle) })
	r.t.Cleanup(func() {
		first.call(func() {
			var err error
			if o.handle, err = first.register(fd, unix.EPOLLIN, forwardings{o}); err != nil {
				r.t.Error(err)
			}
		})
	})
}

// TestEventsAreLost: sessions of which no event is heard are found by the look of each
// second, when they are cut and when they have ended, also after they have been silent
// for so long that they weren't looked at any more.
func TestEventsAreLost(t *testing.T) {
	t.Parallel()
	needs.Offload(t)
	elsewhere(t, netrig.Options{}, false)
	for _, c := range []struct {
		name   string
		silent bool // before
		end    func(c *net.TCPConn) error
		want   accesslog.EndReason
	}{
		{"end of stream", false, func(c *net.TCPConn) error { return c.Close() }, accesslog.ClientClosed},
		{"end of stream after a silence", true, func(c *net.TCPConn) error { return c.Close() }, accesslog.ClientClosed},
		{"reset", false, func(c *net.TCPConn) error {
			if err := c.SetLinger(0); err != nil {
				return err
			}
			return c.Close()
		}, accesslog.ClientReset},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, "offload", []string{serve(t, echo)}, nil)
			r.deafen()
			client := r.dial()
			warm(t, client)
			s := r.moved()
			warm(t, client)
			for until := time.Now().Add(10 * time.Second); c.silent; time.Sleep(50 * time.Millisecond) {
				rests := false
				s.loop.call(func() { rests = s.fwd.rests() })
				if rests {
					break
				}
				if time.Now().After(until) {
					t.Fatal("a silent session is looked at each second")
				}
			}
			if err := c.end(client); err != nil {
				t.Fatal(err)
			}
			const most, least = 2 * warmBytes, 2*warmBytes - 8 // who resets may not have acknowledged the last message
			if s := r.ended(1)[0]; s.Status != 200 || s.Reason != c.want || s.Datapath != "offload" || s.BytesReceived != most || s.BytesSent < least || s.BytesSent > most {
				t.Errorf("record %d %s %s, %d and %d bytes, want %s and %d each way", s.Status, s.Reason, s.Datapath, s.BytesReceived, s.BytesSent, c.want, most)
			}
			r.empty()
		})
	}
}
