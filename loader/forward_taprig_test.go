// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/vmtest/lacks"
)

// vnet is struct virtio_net_hdr of linux/virtio_net.h: what a frame leaves to be done.
type vnet struct {
	flags, gso                         byte
	headers, size, csumStart, csumHere uint16
}

const (
	vnetSize  = 10
	needsCsum = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
	gsoV4     = 1 // VIRTIO_NET_HDR_GSO_TCPV4
	gsoV6     = 4
)

// tap is a device whose wire is a descriptor.
type tap struct {
	t     *testing.T
	fd    int
	link  netlink.Link
	mac   net.HardwareAddr
	other net.HardwareAddr // who is at the other end
}

// newTap makes one, up, with addresses of its own and neighbours that it needn't ask
// for. To be called in the namespace that it is to be in.
func newTap(t *testing.T, name string, local, peers []netip.Addr) *tap {
	t.Helper()
	fd := must1(t, func() (int, error) { return unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0) })
	t.Cleanup(func() { unix.Close(fd) })
	ifr := must1(t, func() (*unix.Ifreq, error) { return unix.NewIfreq(name) })
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	must(t, 0, unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr))
	offloads := unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
	must(t, 0, unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloads))
	l := must1(t, func() (netlink.Link, error) { return netlink.LinkByName(name) })
	d := &tap{t: t, fd: fd, link: l, mac: l.Attrs().HardwareAddr, other: net.HardwareAddr{2, 0, 0, 0, 0, 9}}
	must(t, 0, netlink.LinkSetUp(l))
	for i, a := range local {
		bits := 24
		if a.Is6() {
			bits = 64
		}
		at := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())}, Flags: unix.IFA_F_NODAD}
		must(t, 0, netlink.AddrAdd(l, at))
		must(t, 0, netlink.NeighSet(&netlink.Neigh{LinkIndex: l.Attrs().Index, IP: peers[i].AsSlice(), HardwareAddr: d.other, State: netlink.NUD_PERMANENT}))
	}
	for _, a := range local {
		d.awaitLocal(a)
	}
	return d
}

// awaitLocal waits until what comes for an address is the host's: for one of IPv6 the
// kernel sees to that later.
func (d *tap) awaitLocal(a netip.Addr) {
	d.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		routes, err := netlink.RouteGet(a.AsSlice())
		if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
			return
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("%s is no address of the host's: %v, %v", a, routes, err)
		}
	}
}

// run has a program run on what comes by, or leaves by, the device.
func (d *tap) run(p *ebpf.Program, at ebpf.AttachType) {
	d.t.Helper()
	l, err := link.AttachTCX(link.TCXOptions{Interface: d.link.Attrs().Index, Program: p, Attach: at})
	must(d.t, 0, err)
	d.t.Cleanup(func() { _ = l.Close() })
}

// send has a frame come by the device.
func (d *tap) send(h vnet, frame []byte) {
	d.t.Helper()
	b := []byte{h.flags, h.gso}
	for _, n := range []uint16{h.headers, h.size, h.csumStart, h.csumHere} {
		b = binary.NativeEndian.AppendUint16(b, n)
	}
	copy(frame, d.mac)
	copy(frame[6:], d.other)
	n, err := unix.Write(d.fd, append(b, frame...))
	if err != nil || n != vnetSize+len(frame) {
		d.t.Fatalf("writing a frame: %d, %v", n, err)
	}
}

// next is the next TCP packet that leaves by the device, its addresses of the link
// checked and taken out.
func (d *tap) next() (h vnet, frame []byte) {
	d.t.Helper()
	b := make([]byte, 1<<17)
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(d.fd), Events: unix.POLLIN}}, 100)
		n, err := unix.Read(d.fd, b)
		if err != nil || n < vnetSize+linkHeader+40 {
			continue
		}
		frame = b[vnetSize:n]
		if frame[12] == 8 && frame[13] == 0 && frame[linkHeader+9] == 6 || frame[12] == 0x86 && frame[13] == 0xdd && frame[linkHeader+6] == 6 {
			break
		}
		frame = nil
	}
	if frame == nil {
		d.t.Fatal("nothing leaves by the device")
	}
	if string(frame[:6]) != string(d.other) || string(frame[6:12]) != string(d.mac) {
		d.t.Errorf("from %x to %x on the link", frame[6:12], frame[:6])
	}
	clear(frame[:12])
	n := func(at int) uint16 { return binary.NativeEndian.Uint16(b[at:]) }
	return vnet{b[0], b[1], n(2), n(4), n(6), n(8)}, frame
}

// finish makes the checksum that a frame leaves to the device, which holds the sum of
// the pseudo-header so far.
func finish(t *testing.T, h vnet, frame []byte) {
	t.Helper()
	if h.flags&needsCsum == 0 {
		return
	}
	v4, l4 := headers(frame)
	if int(h.csumStart) != l4 || h.csumHere != 16 {
		t.Fatalf("a checksum at %d from %d", h.csumHere, h.csumStart)
	}
	src, dst := frame[linkHeader+12:linkHeader+16], frame[linkHeader+16:linkHeader+20]
	if !v4 {
		src, dst = frame[linkHeader+8:linkHeader+24], frame[linkHeader+24:linkHeader+40]
	}
	a, _ := netip.AddrFromSlice(src)
	b, _ := netip.AddrFromSlice(dst)
	want := sum16(nil, pseudo(a, b, 6, len(frame)-l4))
	if got := binary.BigEndian.Uint16(frame[l4+16:]); got != want && got%0xffff != want%0xffff {
		t.Errorf("the pseudo-header's sum is %#x, not %#x", got, want)
	}
	binary.BigEndian.PutUint16(frame[l4+16:], want)
	binary.BigEndian.PutUint16(frame[l4+16:], ^sum16(frame[l4:], 0))
}

// leave takes a frame's checksum out, as who leaves it to the device does.
func leave(frame []byte) vnet {
	v4, l4 := headers(frame)
	ip := frame[linkHeader:l4]
	at := 8
	gso := byte(gsoV6)
	size := 16
	if v4 {
		at, gso, size = 12, gsoV4, 4
	}
	a, _ := netip.AddrFromSlice(ip[at : at+size])
	b, _ := netip.AddrFromSlice(ip[at+size : at+2*size])
	binary.BigEndian.PutUint16(frame[l4+16:], sum16(nil, pseudo(a, b, 6, len(frame)-l4)))
	return vnet{flags: needsCsum, gso: gso, csumStart: uint16(l4), csumHere: 16}
}

// needTCX skips where there is none: the rig attaches by it alone.
func needTCX(t *testing.T) {
	t.Helper()
	if !must1(t, haveTCX) {
		lacks.Skip(t, "tcx", "tcx came with 6.6")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Fatal(err)
	}
}
