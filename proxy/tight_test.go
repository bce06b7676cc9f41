// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"sluice/internal/netrig"
	"sluice/loader"
	"sluice/vmtest/lacks"
)

// tight gives the test a bad network for as long as it takes: loopback has the
// packets of an Ethernet and loses some of a hundred, or each hop does, and
// sockets have room for a few of them. What is lost is repeated after 5 ms, so
// that a session is done in less than a second.
func tight(t *testing.T, percent int) {
	t.Helper()
	if h := ground(t); h != nil {
		h.Impair(t, netrig.Impairment{Loss: percent})
	} else {
		tightLoopback(t, percent)
	}
	sysctl(t, "tcp_rto_min_us", "5000")
	rmem, wmem := sysctl(t, "tcp_rmem", ""), sysctl(t, "tcp_wmem", "")
	stop, stopped := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(stop); <-stopped; rmem.set(rmem.old); wmem.set(wmem.old) })
	go func() {
		defer close(stopped)
		for { // a socket takes the sizes of the moment at which it is made
			rmem.set(fmt.Sprintf("4096 %d %d", 4096<<rand.IntN(6), 8192<<rand.IntN(8)))
			wmem.set(fmt.Sprintf("4096 %d %d", 4096<<rand.IntN(4), 8192<<rand.IntN(8)))
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
}

func tightLoopback(t *testing.T, percent int) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetMTU(lo, 1500); err != nil {
		t.Skipf("loopback isn't ours: %v", err)
	}
	t.Cleanup(func() { netlink.LinkSetMTU(lo, lo.Attrs().MTU) })
	loseOnLoopback(t, lo.Attrs().Index, percent)
}

// loseOnLoopback drops packets as they come in, of handshakes and resets too.
func loseOnLoopback(t *testing.T, index, percent int) {
	const drop, pass = 2, 0 // TCX_DROP, TCX_PASS
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:    ebpf.SchedCLS,
		License: "GPL",
		Instructions: asm.Instructions{
			asm.FnGetPrandomU32.Call(),
			asm.Mov.Imm32(asm.R1, 100),
			asm.Mod.Reg32(asm.R0, asm.R1),
			asm.Mov.Reg32(asm.R2, asm.R0),
			asm.Mov.Imm(asm.R0, drop),
			asm.JLT.Imm(asm.R2, int32(percent), "out"),
			asm.Mov.Imm(asm.R0, pass),
			asm.Return().WithSymbol("out"),
		},
	})
	if err != nil {
		lacks.Skip(t, "root", err.Error())
	}
	defer prog.Close()
	l, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: prog, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		lacks.Skip(t, "tcx", err.Error())
	}
	t.Cleanup(func() { l.Close() })
}

// smallMark is a splice that passes bytes to userspace as soon as a few packets of
// them wait, so that directions are taken over and handed back all the time.
func smallMark(t *testing.T) Splice {
	s, err := loader.NewSplice(loader.SpliceOptions{MaxFlows: 1024, Mark: 6 << 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.Counts().PassedOver == 0 {
			t.Error("no direction was ever taken over")
		}
		s.Close()
	})
	return s
}

// setting is a sysctl of the tests' own namespace, and of the running test's hosts.
type setting struct {
	name, old string
	hosts     []*netrig.Host
}

func (s setting) set(v string) error {
	err := os.WriteFile(s.name, []byte(v), 0)
	for _, h := range s.hosts {
		err = errors.Join(err, h.Do(func() error { return os.WriteFile(s.name, []byte(v), 0) }))
	}
	return err
}

// sysctl sets one for the test's time; an empty value leaves it as it is. A
// kernel without it does without.
func sysctl(t *testing.T, name, value string) setting {
	t.Helper()
	s := setting{name: "/proc/sys/net/ipv4/" + name}
	if h := ground(t); h != nil {
		s.hosts = []*netrig.Host{h.Client, h.Backend}
	}
	b, err := os.ReadFile(s.name)
	if err != nil {
		return s
	}
	s.old = strings.TrimSpace(string(b))
	if value != "" {
		if err := s.set(value); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.set(s.old) })
	}
	return s
}

// TestTortureTight: the torture with little room in the sockets, on a network
// that loses packets of both legs: a write that finds no room, a worker that has
// to come back, an acknowledgement that is late, all the time. `make torture` is
// the long form.
func TestTortureTight(t *testing.T) {
	datapaths(t, func(t *testing.T, path string) {
		tight(t, 1)
		ordeal{sessions: tortureSessions(600), most: 128 << 10, endings: clientResets, workers: 192, tight: true}.run(t, path)
	})
}
