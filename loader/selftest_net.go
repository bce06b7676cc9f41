// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// host is a network namespace that has no name, on a thread that ends with it.
type host struct {
	todo chan func()
	ns   int
}

// newHost fails with unix.EPERM without CAP_SYS_ADMIN. close ends it.
func newHost() (*host, error) {
	h := &host{todo: make(chan func()), ns: -1}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the namespace ends with the thread
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			h.ns, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		ready <- err
		for f := range h.todo {
			f()
		}
	}()
	if err := <-ready; err != nil {
		h.close()
		return nil, fmt.Errorf("a network namespace: %w", err)
	}
	return h, nil
}

// do runs f in the namespace. Sockets that it makes stay there.
func (h *host) do(f func() error) error {
	done := make(chan error)
	h.todo <- func() { done <- f() }
	return <-done
}

func (h *host) close() {
	if h == nil {
		return
	}
	close(h.todo)
	if h.ns >= 0 {
		_ = unix.Close(h.ns)
	}
}

// sideNet is the net between the calling thread's namespace, which is to be a
// fresh one, and a host on the side of the client or of the backend.
type sideNet struct {
	host       *host
	index      int // of the device on our side
	ours, peer string
}

// testNet is both.
type testNet struct {
	sides [2]sideNet
	ip6   bool
}

// Addresses of the nets; ours ends with 1, the peer's with 2. None of them is known
// to anybody outside.
func side4(side, last int) unix.SockaddrInet4 {
	return unix.SockaddrInet4{Addr: [4]byte{198, 18, byte(side), byte(last)}}
}

func side6(side, last int) unix.SockaddrInet6 {
	return unix.SockaddrInet6{Addr: [16]byte{0: 0xfd, 3: byte(side), 15: byte(last)}}
}

// errNoVeth is of kernels that are built without.
var errNoVeth = errors.New("this kernel has no veth devices")

// newTestNet joins two hosts to the calling thread's namespace. close ends them;
// the devices on our side end with theirs.
func newTestNet(deadline time.Time) (_ *testNet, err error) {
	n := &testNet{ip6: true}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	for side := range n.sides {
		s := &n.sides[side]
		s.ours, s.peer = fmt.Sprintf("sl-self%d", side), fmt.Sprintf("sl-peer%d", side)
		if s.host, err = newHost(); err != nil {
			return nil, err
		}
		a := netlink.NewLinkAttrs()
		a.Name = s.ours
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: a, PeerName: s.peer, PeerNamespace: netlink.NsFd(s.host.ns)}); err != nil {
			if errors.Is(err, unix.EOPNOTSUPP) {
				err = errNoVeth
			}
			return nil, fmt.Errorf("joining network namespaces: %w", err)
		}
		if s.index, err = n.address(s.ours, side, 1); err != nil {
			return nil, err
		}
		if err := s.host.do(func() error { _, err := n.address(s.peer, side, 2); return err }); err != nil {
			return nil, err
		}
	}
	for _, s := range n.sides {
		if err := waitUp(s.ours, deadline); err != nil {
			return nil, err
		}
		if err := s.host.do(func() error { return waitUp(s.peer, deadline) }); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// address gives a device its addresses and sets it up.
func (n *testNet) address(name string, side, last int) (index int, err error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("device %s: %w", name, err)
	}
	v4, v6 := side4(side, last).Addr, side6(side, last).Addr
	a := &netlink.Addr{IPNet: &net.IPNet{IP: v4[:], Mask: net.CIDRMask(24, 32)}}
	if err := netlink.AddrAdd(l, a); err != nil {
		return 0, fmt.Errorf("an address for %s: %w", name, err)
	}
	// Without duplicate address detection, which takes a second.
	a = &netlink.Addr{IPNet: &net.IPNet{IP: v6[:], Mask: net.CIDRMask(64, 128)}, Flags: unix.IFA_F_NODAD}
	switch err := netlink.AddrAdd(l, a); {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EAFNOSUPPORT):
		n.ip6 = false // switched off, or not built in
	case err != nil:
		return 0, fmt.Errorf("an IPv6 address for %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return 0, fmt.Errorf("setting %s up: %w", name, err)
	}
	return l.Attrs().Index, nil
}

// waitUp waits until the device carries packets: the kernel finds its carrier a
// while after it is set up, and a SYN lost before costs a second.
func waitUp(name string, deadline time.Time) error {
	for {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("device %s: %w", name, err)
		}
		if l.Attrs().OperState == netlink.OperUp {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("device %s doesn't come up: %w", name, errLate)
		}
		time.Sleep(500 * time.Microsecond)
	}
}

// ethtoolSTXCSum is ETHTOOL_STXCSUM of linux/ethtool.h.
const ethtoolSTXCSum = 0x17

// wholeSums has the hosts compute checksums before their packets reach the device.
func (n *testNet) wholeSums() error {
	for _, s := range n.sides {
		if err := s.host.do(func() error {
			f, err := newOffloads()
			if err != nil {
				return err
			}
			defer f.close()
			return f.ask(s.peer, unsafe.Pointer(&[2]uint32{ethtoolSTXCSum, 0}))
		}); err != nil {
			return fmt.Errorf("switching checksum offload of %s off: %w", s.peer, err)
		}
	}
	return nil
}

func (n *testNet) close() {
	if n == nil {
		return
	}
	for _, s := range n.sides {
		s.host.close()
	}
}
