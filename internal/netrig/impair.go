// SPDX-License-Identifier: Apache-2.0

package netrig

import (
	"fmt"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Impairment is what the net does to packets, each a number of a hundred. A packet
// is what the sender's device sent: up to 64 KiB of TCP at once unless its Features
// say else.
type Impairment struct {
	Loss, Duplicate int
	// Late packets go behind those that wait in the receiver's queue: what was sent
	// after them in the same burst overtakes them.
	Late int
}

// Impair has packets impaired where they enter the net, for the test's time or until
// the next call for that port. No port: all of them, so a packet from client to
// backend is at risk twice, as is each answer.
func (r *Rig) Impair(t testing.TB, i Impairment, at ...Port) {
	t.Helper()
	if len(at) == 0 {
		at = r.ports
	}
	for _, p := range at {
		if p == ToBackend && !slices.Contains(r.ports, p) {
			p = ToClient
		}
		if err := r.net.Do(func() error { return impair(p.String(), i) }); err != nil {
			t.Fatal("impairing ", p, ": ", err)
		}
		t.Cleanup(func() {
			if err := r.net.Do(func() error { return unimpair(p.String()) }); err != nil {
				t.Error("repairing ", p, ": ", err)
			}
		})
	}
}

func clsact(index int) *netlink.GenericQdisc {
	return &netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT},
		QdiscType:  "clsact",
	}
}

// unimpair takes the program away, if there is one.
func unimpair(device string) error {
	l, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	have, err := netlink.QdiscList(l)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(have, func(q netlink.Qdisc) bool { return q.Type() == "clsact" }) {
		return nil
	}
	return netlink.QdiscDel(clsact(l.Attrs().Index))
}

// impair attaches a program by clsact, which every kernel has that sluice runs on.
func impair(device string, i Impairment) error {
	if err := unimpair(device); err != nil {
		return err
	}
	l, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	index := l.Attrs().Index
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: impairing(int32(index), i)})
	if err != nil {
		return fmt.Errorf("loading the program: %w", err)
	}
	defer prog.Close()
	if err := netlink.QdiscAdd(clsact(index)); err != nil {
		return err
	}
	return netlink.FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 1},
		Fd:          prog.FD(), Name: "impair", DirectAction: true,
	})
}

// impairing is the program. A clone enters the device anew, after those that wait in
// the queue, and takes its chances like any other.
func impairing(index int32, i Impairment) asm.Instructions {
	const drop, pass, ingress = 2, 0, 1 // TC_ACT_SHOT, TC_ACT_OK, BPF_F_INGRESS
	// with goes on to the label for this many of a hundred.
	with := func(percent int, label string) asm.Instructions {
		return asm.Instructions{
			asm.FnGetPrandomU32.Call(),
			asm.Mod.Imm32(asm.R0, 100),
			asm.JLT.Imm(asm.R0, int32(percent), label),
		}
	}
	clone := func(label string) asm.Instructions {
		return asm.Instructions{
			asm.Mov.Reg(asm.R1, asm.R6).WithSymbol(label),
			asm.Mov.Imm(asm.R2, index),
			asm.Mov.Imm(asm.R3, ingress),
			asm.FnCloneRedirect.Call(),
		}
	}
	return slices.Concat(
		asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)},
		with(i.Loss, "drop"),
		with(i.Late, "late"),
		with(i.Duplicate, "duplicate"),
		asm.Instructions{asm.Ja.Label("pass")},
		clone("duplicate"),
		asm.Instructions{asm.Mov.Imm(asm.R0, pass).WithSymbol("pass"), asm.Return()},
		clone("late"),
		asm.Instructions{asm.Mov.Imm(asm.R0, drop).WithSymbol("drop"), asm.Return()},
	)
}
