// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"sluice/bpf"
	"sluice/internal/mono"
)

func tell(t *testing.T, r Report) {
	t.Helper()
	t.Log(r.Where)
	for _, s := range r.Steps {
		t.Logf("%-28s %-5v %8v %s", s.Name, s.OK, s.Took, s.Detail)
	}
}

func TestSelftestOffload(t *testing.T) {
	needForward(t)
	for _, c := range []struct {
		name  string
		fault offloadFault
		where string
	}{
		{"first way", offloadFault{}, "own network namespaces"},
		{"clsact", offloadFault{clsact: true}, "own network namespaces"},
		{"packets", offloadFault{packets: true}, "packets only: no right to make network namespaces"},
		{"no veth", offloadFault{noVeth: true}, "packets only: this kernel has no veth devices"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := openFDs(t)
			report, err := selftestOffload(context.Background(), zerolog.Nop(), c.fault)
			tell(t, report)
			if err != nil || !report.Safe() || report.Where != c.where {
				t.Fatal(report.Where, err)
			}
			if after := openFDs(t); after != before {
				t.Errorf("%d descriptors open, %d before", after, before)
			}
		})
	}
}

// TestForwardAwaitsSockets: what was left to a socket and hasn't reached it, as far as
// that shows, keeps a flow from being cut, and without the rule it doesn't.
func TestForwardAwaitsSockets(t *testing.T) {
	needForward(t)
	for rule, held := range map[string]bool{"": true, bpf.ForwardVarRuleReached: false} {
		fault := offloadFault{patience: time.Minute, without: rule, at: func(moment string, o *offloadTest, slot uint32) {
			if o.step != "cut" || moment != "registered" {
				return
			}
			var w bpf.ForwardFlowWatch
			must(t, 0, o.f.objs.Watches.Lookup(slot, &w))
			w.In[ClientSide], w.Raised[ClientSide] = w.In[ClientSide]+100000, uint64(mono.New().Now())
			w.Since = 0 // long ago
			must(t, 0, o.f.objs.Watches.Put(slot, &w))
		}}
		report, err := selftestOffload(context.Background(), zerolog.Nop(), fault)
		if f := report.Failed(); held && (f == nil || f.Name != "cut" || !strings.Contains(f.Detail, "no moment with nothing under way")) || !held && err != nil {
			t.Errorf("without %q: %v, the cut is to be held up: %t", rule, err, held)
		}
	}
}

// What each step guards, broken, must be missed by that step.
func TestSelftestOffloadFailsWhenBroken(t *testing.T) {
	needForward(t)
	spoil := func(moment string, do func(o *offloadTest, r *Flow)) offloadFault {
		return offloadFault{at: func(m string, o *offloadTest, slot uint32) {
			if m == moment {
				do(o, o.f.Flow(slot))
			}
		}}
	}
	inStep := func(step string, f offloadFault) offloadFault {
		at := f.at
		f.at = func(m string, o *offloadTest, slot uint32) {
			if o.step == step {
				at(m, o, slot)
			}
		}
		return f
	}
	onPackets := func(f offloadFault) offloadFault {
		f.packets = true
		return f
	}
	unhook := func(o *offloadTest, _ *Flow) { must(t, 0, o.unhook()) }
	const pass = -1
	for _, c := range []struct {
		broken string
		fault  offloadFault
		step   string
	}{
		{"the program runs on no device", offloadFault{noHook: true}, "hook"},
		{"it isn't told of its devices", offloadFault{noNote: true}, "register"},
		{"every pair is enlisted", offloadFault{stub: map[string]int32{"enlist": int32(Fits)}}, "register"},
		{"no pair is", offloadFault{stub: map[string]int32{"enlist": int32(NoSocket)}}, "register"},
		{"a pair is armed at once", spoil("registered", func(_ *offloadTest, r *Flow) { r.Arm() }), "register"},
		{"all packets are the sockets'", offloadFault{stub: map[string]int32{"forward": pass}}, "cut"},
		{"numbers of the two sockets don't fit", inStep("cut", spoil("registered", func(_ *offloadTest, r *Flow) { r.raw.Side[ClientSide].SeqAdd++ })), "cut"},
		{"sequence numbers are off by one", inStep("cut", spoil("cut", func(_ *offloadTest, r *Flow) { r.raw.Side[BackendSide].SeqAdd++ })), "cut"},
		{"bytes are miscounted", inStep("cut", spoil("cut", func(_ *offloadTest, r *Flow) { r.raw.Side[ClientSide].Base-- })), "cut"},
		{"packets go up again after the cut", inStep("cut", spoil("cut", unhook)), "cut"},
		{"addresses of IPv6 are wrong", inStep("cut, IPv6", spoil("cut", func(_ *offloadTest, r *Flow) { r.raw.Side[ClientSide].Daddr[3]++ })), "cut, IPv6"},
		{"sockets are never believed quiet", offloadFault{stub: map[string]int32{"verify": int32(OutOfOrder)}}, "cut"},
		{"sockets are closed as usual", offloadFault{noRepair: true}, "let go"},
		{"packets find no socket", inStep("let go", spoil("alone", unhook)), "let go"},
		{"checksums are off", inStep("checksums", spoil("cut", func(_ *offloadTest, r *Flow) { r.raw.Side[ClientSide].AddrDiff++ })), "checksums"},
		{"checksums of IPv6 are off", inStep("checksums, IPv6", spoil("cut", func(_ *offloadTest, r *Flow) { r.raw.Side[BackendSide].AddrDiff++ })), "checksums, IPv6"},
		{"ends of stream go up", inStep("end of stream", spoil("ends", unhook)), "end of stream"},
		{"the other's end of stream was first", inStep("end of stream", spoil("ends", func(_ *offloadTest, r *Flow) { r.raw.Flags |= firstFinBackend })), "end of stream"},
		{"ends of stream are dropped", inStep("end of stream, IPv6", spoil("ends", func(_ *offloadTest, r *Flow) { r.Reset() })), "end of stream, IPv6"},
		{"a reset isn't believed", inStep("reset", spoil("ends", func(_ *offloadTest, r *Flow) { r.raw.Side[ClientSide].Acked++ })), "reset"},
		{"a reset goes up", inStep("reset", spoil("ends", unhook)), "reset"},
		{"our reset's number is wrong", inStep("reset of ours", spoil("ends", func(_ *offloadTest, r *Flow) { r.raw.Side[BackendSide].Acked += 1 << 24 })), "reset of ours"},
		{"our reset comes from another port", inStep("reset of ours, IPv6", spoil("ends", func(_ *offloadTest, r *Flow) { r.raw.Side[BackendSide].Sport++ })), "reset of ours, IPv6"},
		{"a flow is left", inStep("reset", spoil("released", func(o *offloadTest, _ *Flow) {
			must(t, 0, o.f.objs.FlowKeys.Put(bpf.ForwardFlowKey{Sport: 1}, bpf.ForwardFlowRef{}))
		})), "nothing left"},
		{"a record is left", inStep("reset", spoil("released", func(_ *offloadTest, r *Flow) { r.raw.State = stateWatched })), "nothing left"},
		{"a made packet is left alone", offloadFault{packets: true, stub: map[string]int32{"forward": pass}}, "packets"},
		{"a made packet's number is wrong", onPackets(spoil("record", func(_ *offloadTest, r *Flow) { r.raw.Side[ClientSide].SeqAdd++ })), "packets"},
		{"a made packet's checksum is wrong", onPackets(spoil("record", func(_ *offloadTest, r *Flow) { r.raw.Side[BackendSide].AddrDiff++ })), "packets"},
		{"a made packet's flow is left", onPackets(spoil("released", func(_ *offloadTest, r *Flow) { r.raw.State = stateWatched })), "nothing left"},
	} {
		t.Run(c.broken, func(t *testing.T) {
			t.Parallel()
			c.fault.patience = time.Minute // a fault found is meant, not time that is up
			report, err := selftestOffload(context.Background(), zerolog.Nop(), c.fault)
			if !errors.Is(err, ErrUnsafe) {
				t.Fatalf("error is %v, not ErrUnsafe: %+v", err, report)
			}
			if f := report.Failed(); f == nil || f.Name != c.step {
				t.Errorf("failed step is %+v, not %q", f, c.step)
			} else {
				t.Log(f.Detail)
			}
		})
	}
}

// What was left to a socket and hasn't reached it is waited for, also if another CPU left it
// after the packet came that would be the first forwarded one; after a second it is taken
// for lost, or forged.
func TestCutAwaitsWhatIsUnderWay(t *testing.T) {
	needForward(t)
	for _, c := range []struct {
		name string
		ago  time.Duration
		cut  bool
	}{
		{"left just now", -time.Minute, false},
		{"left long ago", 2 * time.Second, true},
	} {
		for side, name := range []string{"client", "backend"} {
			t.Run(c.name+", from the "+name, func(t *testing.T) {
				t.Parallel()
				fault := offloadFault{patience: time.Minute, at: func(moment string, o *offloadTest, slot uint32) {
					if moment != "registered" || o.step != "cut" {
						return
					}
					var w bpf.ForwardFlowWatch
					must(t, 0, o.f.objs.Watches.Lookup(slot, &w))
					w.In[side] += 1 << 24 // more than is sent
					w.Raised[side] = uint64(mono.New().Now() - int64(c.ago))
					w.Since = 0 // long ago: that both sides have been seen isn't what is tried
					must(t, 0, o.f.objs.Watches.Put(slot, &w))
				}}
				report, err := selftestOffload(context.Background(), zerolog.Nop(), fault)
				if c.cut {
					must(t, 0, err)
				} else if f := report.Failed(); f == nil || f.Name != "cut" {
					t.Errorf("failed step is %+v, %v", f, err)
				}
			})
		}
	}
}
