// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"sluice/bpf"
)

// tagged is a frame in a VLAN, as it comes from the wire.
func tagged(frame []byte, priority, vlan uint16) []byte {
	tci := priority<<13 | vlan
	return slices.Concat(frame[:12], []byte{0x81, 0, byte(tci >> 8), byte(tci)}, frame[12:])
}

// TestForwardOnDevices: what only a device shows: frames with tags, and such whose
// headers aren't in one piece; right, and wrong without the rule that is for it.
func TestForwardOnDevices(t *testing.T) {
	for _, c := range []struct {
		name, rule string
		vlan       uint16
		tag        bool
		size       int
		inPiece    uint16
		sent       bool
	}{
		{"a priority alone", bpf.ForwardVarRuleUntag, 0, true, 100, linkHeader, true},
		{"another VLAN", "", 5, true, 100, linkHeader, false},
		{"headers in pieces", bpf.ForwardVarRuleWhole, 0, false, 5000, linkHeader, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			rules := map[string]bool{"": c.sent}
			if c.rule != "" {
				rules[c.rule] = false
			}
			for rule, want := range rules {
				inLabWithout(t, rule, func(t *testing.T, outer *lab) {
					needTCX(t)
					inNamespace(t, func(t *testing.T) {
						l := &lab{t, outer.f, outer.v}
						from := newTap(t, "sl-clients", []netip.Addr{l.v.front.Addr()}, []netip.Addr{l.v.client.Addr()})
						to := newTap(t, "sl-backends", []netip.Addr{l.v.host.Addr()}, []netip.Addr{l.v.backend.Addr()})
						from.run(l.f.Program(), ebpf.AttachTCXIngress)
						r := l.record()
						r.Side[ClientSide].Ifindex = uint32(to.link.Attrs().Index)
						l.set(r)
						s := l.segment(ClientSide)
						s.payload, s.options = make([]byte, c.size), nil
						frame := s.frame()
						h := vnet{headers: c.inPiece}
						if c.tag {
							frame = tagged(frame, 5, c.vlan)
						}
						before := l.counts()["sent"]
						from.send(h, frame)
						if !want {
							time.Sleep(20 * time.Millisecond)
							if n := l.counts()["sent"] - before; n != 0 {
								t.Errorf("without %q %d packets are sent on", rule, n)
							}
							return
						}
						got, out := to.next()
						finish(t, got, out)
						l.same(out, l.translated(ClientSide, s))
					})
				})
			}
		})
	}
}
