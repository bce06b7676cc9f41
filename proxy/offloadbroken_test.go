// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"sluice/accesslog"
	"sluice/config"
	"sluice/internal/needs"
	"sluice/internal/netrig"
)

// breakOffload takes a rule away before there is a session.
func (r *rig) breakOffload(f offloadFault) {
	r.engine.offload.Load().fault = f
	for _, l := range r.engine.loops { // which see it from here on
		l.call(func() {})
	}
}

// TestOffloadWithoutRules: each situation comes out right, and wrong without the rule of
// userspace that is for it. bpf/forward_rules.h has those of the program.
func TestOffloadWithoutRules(t *testing.T) {
	t.Parallel()
	needs.Offload(t)
	elsewhere(t, netrig.Options{}, false)
	within := func(r *rig, d time.Duration) bool { // has its record
		select {
		case <-r.engine.sessions.Idle():
			return true
		case <-time.After(d):
			return false
		}
	}
	for _, c := range []struct {
		hazard string
		fault  offloadFault
		option func(*config.Listener)
		right  func(t *testing.T, r *rig, client *net.TCPConn) bool
	}{
		{"an end is lost with its event", offloadFault{noLook: true}, nil, func(t *testing.T, r *rig, client *net.TCPConn) bool {
			r.moved()
			r.deafen()
			client.Close()
			return within(r, 3*time.Second)
		}},
		{"an end vanishes", offloadFault{noPeers: true}, func(l *config.Listener) { l.Keepalive = time.Second }, func(t *testing.T, r *rig, _ *net.TCPConn) bool {
			r.moved()
			h := ground(t)
			h.Impair(t, netrig.Impairment{Loss: 100})
			defer h.Impair(t, netrig.Impairment{})
			return within(r, 6*time.Second)
		}},
		{"an end that we close in the moment of the cut", offloadFault{noTakeBack: true}, nil, func(t *testing.T, r *rig, client *net.TCPConn) bool {
			s := r.session()
			s.loop.call(func() { s.cut(accesslog.Shutdown) })
			rec := r.ended(1)[0]
			_, err := client.Read(make([]byte, 1))
			return rec.Datapath == "offload" && rec.BytesReceived == 2*warmBytes && rec.BytesSent == 2*warmBytes && errors.Is(err, syscall.ECONNRESET)
		}},
	} {
		t.Run(c.hazard, func(t *testing.T) {
			for _, broken := range []bool{false, true} {
				r := newRig(t, "offload", []string{serve(t, echo)}, c.option)
				if broken {
					r.breakOffload(c.fault)
				}
				cutUnheard := c.fault.noTakeBack
				if cutUnheard {
					r.deafen()
					for _, l := range r.engine.loops { // nor is it looked for
						l.call(func() { l.sweepAt = 1 << 62 })
					}
				}
				client := r.dial()
				defer client.Close()
				warm(t, client)
				warm(t, client)
				time.Sleep(60 * time.Millisecond) // for the last acknowledgement
				if right := c.right(t, r, client); right == broken {
					t.Errorf("broken %t: right %t", broken, right)
				}
				r.engine.ResetAll()
				r.empty()
			}
		})
	}
}
