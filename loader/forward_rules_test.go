// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"net/netip"
	"testing"

	"sluice/bpf"
)

// verdictOf runs the program on a packet of a flow with this record.
func (l *lab) verdictOf(r flowRecord, frame []byte) (verdict uint32, out []byte) {
	l.t.Helper()
	l.set(r)
	return l.run(l.f.objs.Forward, frame, false)
}

// TestForwardWithoutRules: each situation comes out right, and wrong without the rule
// that is for it.
func TestForwardWithoutRules(t *testing.T) {
	for _, c := range []struct {
		hazard, rule string
		right        func(l *lab) bool
	}{
		{"packets of one side may pass under other addresses", bpf.ForwardVarRuleBothSeen, func(l *lab) bool {
			r := l.record()
			r.State, r.Flags = stateArmed, 0
			before := l.counts()["unquiet"]
			l.verdictOf(r, l.segment(ClientSide).frame())
			return l.counts()["unquiet"] == before // nobody has asked whether all is quiet
		}},
		{"a window that isn't zero becomes zero", bpf.ForwardVarRuleOpen, func(l *lab) bool {
			r := l.record()
			r.Side[ClientSide].ScaleIn, r.Side[ClientSide].ScaleOut = 0, 10
			s := l.segment(ClientSide)
			s.window = 1
			_, out := l.verdictOf(r, s.frame())
			_, l4 := headers(out)
			return out[l4+14]|out[l4+15] != 0
		}},
		{"a reset by who guesses its number", bpf.ForwardVarRuleBelieve, func(l *lab) bool {
			s := l.segment(ClientSide)
			s.flags, s.payload, s.seq = rst, nil, s.seq+5
			l.verdictOf(l.record(), s.frame())
			return !l.f.Flow(labSlot).Ended()
		}},
		{"an acknowledgement of what was never sent", bpf.ForwardVarRuleBelieve, func(l *lab) bool {
			s := l.segment(ClientSide)
			s.flags, s.payload, s.ack = ack, nil, s.ack+5000
			l.verdictOf(l.record(), s.frame())
			return l.f.Flow(labSlot).Delivered(BackendSide) == 0
		}},
		{"bytes beyond what the other side takes", bpf.ForwardVarRuleBelieve, func(l *lab) bool {
			s := l.segment(ClientSide)
			s.seq += 10 * labWindow
			l.verdictOf(l.record(), s.frame())
			return l.f.Flow(labSlot).raw.Side[ClientSide].Next == labNext[ClientSide]
		}},
		{"the client begins anew from the same port", bpf.ForwardVarRuleRetire, func(l *lab) bool {
			r := l.record()
			r.State = stateEnded
			s := l.segment(ClientSide)
			s.flags, s.payload, s.seq = syn, nil, s.seq+100000
			verdict, _ := l.verdictOf(r, s.frame())
			return verdict == passed
		}},
		{"a late reset renames the end", bpf.ForwardVarRuleFirstEnd, func(l *lab) bool {
			s := l.segment(ClientSide)
			s.flags, s.payload = rst|ack, nil
			l.verdictOf(l.record(), s.frame())
			s = l.segment(BackendSide)
			s.flags, s.payload = rst|ack, nil
			l.run(l.f.objs.Forward, s.frame(), false)
			side, reset := l.f.Flow(labSlot).WasReset()
			return reset && side == ClientSide
		}},
		{"a packet of a flow reaches the stack", bpf.ForwardVarRuleNoneUp, func(l *lab) bool {
			b := l.segment(ClientSide).frame()
			_, l4 := headers(b)
			verdict, _ := l.verdictOf(l.record(), tcpByte(12, 0x10)(b, l4)) // a header of 4 bytes
			return verdict != passed
		}},
		{"a key that is another flow's by the time it is read", bpf.ForwardVarRuleSame, func(l *lab) bool {
			key := l.keys()[ClientSide]
			key.Sport ^= 1 // whose record's addresses are others
			must(l.t, 0, l.f.objs.FlowKeys.Put(&key, &bpf.ForwardFlowRef{Slot: labSlot}))
			defer func() { must(l.t, 0, l.f.objs.FlowKeys.Delete(&key)) }()
			s := l.segment(ClientSide)
			s.src = netip.AddrPortFrom(s.src.Addr(), s.src.Port()^0x100)
			if s.src.Port() != ntohs(key.Sport) {
				l.t.Fatalf("port %d, key %d", s.src.Port(), ntohs(key.Sport))
			}
			verdict, _ := l.verdictOf(l.record(), s.frame())
			return verdict == passed
		}},
		{"a path that takes less than the device", bpf.ForwardVarRuleErrors, func(l *lab) bool {
			r := l.record()
			sent(ClientSide, 100)(&r)
			kind, code := byte(3), byte(4)
			if !l.v.client.Addr().Is4() {
				kind, code = 2, 0
			}
			in, _ := l.told(ClientSide, kind, code, 20, nil)
			verdict, _ := l.verdictOf(r, in.frame())
			return verdict == sentOn
		}},
	} {
		t.Run(c.hazard, func(t *testing.T) {
			for rule, want := range map[string]bool{"": true, c.rule: false} {
				inLabWithout(t, rule, func(t *testing.T, l *lab) {
					if c.right(l) != want {
						t.Errorf("without %q it is right: %v", rule, !want)
					}
				})
			}
		})
	}
}
