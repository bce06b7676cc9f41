// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/internal/netrig"
	"sluice/vmtest/lacks"
)

// TestMPTCPClients: clients that offer MPTCP get a connection of TCP, and are forwarded
// like others, also where their SYNs lose an option on the way to us.
func TestMPTCPClients(t *testing.T) {
	if fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP); err != nil {
		lacks.Skip(t, "mptcp", err.Error())
	} else {
		unix.Close(fd)
	}
	onPaths(t, netrig.Options{}, func(t *testing.T, path string, h *hosts) {
		h.Client.Sysctl(t, "ipv4/tcp_ecn", "1")
		h.Backend.Sysctl(t, "ipv4/tcp_timestamps", "0")
		h.multipath = true
		r := newRig(t, path, []string{serve(t, echo)}, nil)
		r.foreign(t, path, "timestamps 1")
		if n := h.Client.Count(t, "MPCapableSYNTX"); n == 0 {
			t.Error("no SYN offered MPTCP")
		}
	})
}

// TestSMCClients: SYNs have an option that we know nothing of, that of SMC (RFC 7609).
func TestSMCClients(t *testing.T) {
	onPaths(t, netrig.Options{}, func(t *testing.T, path string, h *hosts) {
		changed := offerSMC(t, h)
		r := newRig(t, path, []string{serve(t, echo)}, nil)
		r.foreign(t, path, "")
		if n := changed(); n < 2 {
			t.Errorf("%d SYNs had the option", n)
		}
	})
}

// foreign has sessions from clients whose SYNs have unusual options.
func (r *rig) foreign(t *testing.T, path, first string) {
	t.Helper()
	n, fell := r.share(1)
	if path != "offload" {
		r.share(4)
		return
	}
	if want := 1; first == "" && n != want || fell != first {
		t.Errorf("the first: %d forwarded, fell: %q, not %q", n, fell, first)
	}
	const sessions = 8
	if n, fell := r.share(sessions); n != sessions || fell != "" {
		t.Errorf("%d of %d were forwarded; fell: %q", n, sessions, fell)
	}
}

// dialMultipath dials with MPTCP.
func dialMultipath(ctx context.Context, h *netrig.Host, from netip.Addr, to netip.AddrPort) (c *net.TCPConn, err error) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	d.SetMultipathTCP(true)
	err = h.Do(func() error {
		any, err := d.DialContext(ctx, "tcp", to.String())
		if err == nil {
			c = any.(*net.TCPConn)
		}
		return err
	})
	return c, err
}

// offerSMC has the client's SYNs go out with the option of SMC in the place of their
// timestamps, which are as long with the padding. It returns how many did.
func offerSMC(t *testing.T, h *hosts) (changed func() uint32) {
	t.Helper()
	const ethernet, tcpFlags, timestamps, syn = 14, 13, 20 + 4, 2
	header := int32(20)
	if h.v6 {
		header = 40
	}
	count, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		lacks.Skip(t, "root", err.Error())
	}
	t.Cleanup(func() { count.Close() })
	protocol := int32(ethernet + 9)
	if h.v6 {
		protocol = ethernet + 6
	}
	word := func(b ...byte) int64 { return int64(int32(binary.NativeEndian.Uint32(b))) }
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadAbs(protocol, asm.Byte),
		asm.JNE.Imm(asm.R0, unix.IPPROTO_TCP, "pass"),
		asm.LoadAbs(ethernet+header+tcpFlags, asm.Byte),
		asm.And.Imm(asm.R0, 0x12), // not SYN-ACK
		asm.JNE.Imm(asm.R0, syn, "pass"),
		// SACK permitted, timestamps (kind 8, 10 bytes), as tcp_options_write() has them.
		asm.LoadAbs(ethernet+header+timestamps, asm.Word),
		asm.JNE.Imm(asm.R0, 0x0402080a, "pass"),
		// SACK permitted, padding; the experimental option (kind 254, 6 bytes) of SMC-R:
		// E2D4C3D9, padding.
		asm.StoreImm(asm.RFP, -16, word(4, 2, 1, 1), asm.Word),
		asm.StoreImm(asm.RFP, -12, word(254, 6, 0xe2, 0xd4), asm.Word),
		asm.StoreImm(asm.RFP, -8, word(0xc3, 0xd9, 1, 1), asm.Word),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R2, ethernet+header+timestamps),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, -16),
		asm.Mov.Imm(asm.R4, 12),
		asm.Mov.Imm(asm.R5, 0), // a device's checksum is made later
		asm.FnSkbStoreBytes.Call(),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, count.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreXAdd(asm.R0, asm.R1, asm.Word),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("pass"),
		asm.Return(),
	}})
	if err != nil {
		t.Fatal("loading the program: ", err)
	}
	defer prog.Close()
	must(t, h.Client.Do(func() error {
		l, err := netlink.LinkByName(h.Client.Devices[0])
		if err != nil {
			return err
		}
		index := l.Attrs().Index
		qdisc := &netlink.GenericQdisc{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}, QdiscType: "clsact"}
		if err := netlink.QdiscAdd(qdisc); err != nil {
			return err
		}
		return netlink.FilterAdd(&netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: netlink.HANDLE_MIN_EGRESS, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 1},
			Fd:          prog.FD(), Name: "smc", DirectAction: true,
		})
	}))
	return func() (n uint32) {
		must(t, count.Lookup(uint32(0), &n))
		return n
	}
}
