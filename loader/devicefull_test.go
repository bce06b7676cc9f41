// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// fill attaches programs until a device takes no more there; what it gives detaches one.
func fill(t *testing.T, index int, at place) (one func()) {
	t.Helper()
	for {
		p := must1(t, func() (*ebpf.Program, error) {
			return ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
				asm.Mov.Imm(asm.R0, tcUnspec), asm.Return(),
			}})
		})
		t.Cleanup(func() { p.Close() })
		l, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: p, Attach: at.tcx()})
		if errors.Is(err, unix.ERANGE) {
			return one
		}
		must(t, 0, err)
		t.Cleanup(func() { l.Close() })
		one = func() { must(t, 0, l.Close()) }
	}
}

// A device that takes no more programs says so, and is hooked once it does.
func TestDeviceIsFull(t *testing.T) {
	if !must1(t, haveTCX) {
		return // filters of clsact are as many as one likes
	}
	alone(t, func(t *testing.T) {
		veth(t, "v0", "v1")
		in, out := fill(t, index1(t, "v0"), ingress), fill(t, index1(t, "v1"), egress)
		d, counter, _ := bothPlaces(t, DevicesOptions{})
		const full = "it has as many programs of tc as the kernel takes"
		hooked(t, d, counter, "v0", false)
		if why := deviceNow(d, "v0").Why; !strings.HasPrefix(why, full) {
			t.Errorf("the full device: %q", why)
		}
		leaves(t, d, counter, "v1", false)
		if all, why := d.Egress(); all || !strings.HasPrefix(why, "v1: "+full) {
			t.Errorf("what leaves: %v, %q", all, why)
		}
		in()
		out()
		must(t, 0, d.Check())
		leaves(t, d, counter, "v0", true)
		leaves(t, d, counter, "v1", true)
		if all, why := d.Egress(); !all || why != "" {
			t.Errorf("what leaves: %v, %q", all, why)
		}
	})
}
