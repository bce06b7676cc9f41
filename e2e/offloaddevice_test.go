// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"sluice/internal/netrig"
)

// attached is a program of somebody else's that lets every packet pass.
func attached(t *testing.T, device string, at ebpf.AttachType, first bool) (link.Link, error) {
	t.Helper()
	d, err := net.InterfaceByName(device)
	if err != nil {
		t.Fatal(err)
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R0, -1), asm.Return(),
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close() // the link holds it
	o := link.TCXOptions{Interface: d.Index, Program: p, Attach: at}
	if first {
		o.Anchor = link.Head()
	}
	l, err := link.AttachTCX(o)
	if err == nil {
		t.Cleanup(func() { l.Close() })
	}
	return l, err
}

// told waits until sluice has said something.
func (i *instance) told(words string) {
	i.t.Helper()
	eventually(i.t, func() string {
		if said := i.stderr.String(); !strings.Contains(said, words) {
			return "it didn't say " + words + ":\n" + said
		}
		return ""
	})
}

// TestOtherPrograms: who comes before the forward program on a device, and who leaves no
// room for what looks at packets that leave, is told of, and so is that it is over;
// sessions go on meanwhile. (Not beside other tests: their programs are on this device,
// too, and leave room as they go.)
func TestOtherPrograms(t *testing.T) {
	h := startOnHosts(t, false, netrig.Options{}, ", datapath: splice", "")
	device := h.rig.Balancer.Devices[0]
	var last link.Link
	for {
		l, err := attached(t, device, ebpf.AttachTCXEgress, false)
		if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.EINVAL) {
			return // a filter of clsact has room always, and loader's tests have their order
		}
		if errors.Is(err, unix.ERANGE) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		last = l
	}
	h.write(h.file("", ""))
	h.told("what leaves by a device can't be seen")
	c, _ := h.forwarded()
	closed(t, last)
	h.told("what leaves by every device is seen again")

	other, err := attached(t, device, ebpf.AttachTCXIngress, true)
	if err != nil {
		t.Fatal(err)
	}
	h.told("another program of tc runs before the forward program")
	h.exchange(c)
	closed(t, other)
	h.told("the forward program is first on every device again")
	h.exchange(c)
}

func closed(t *testing.T, l link.Link) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
