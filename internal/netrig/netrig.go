// SPDX-License-Identifier: Apache-2.0

// Package netrig puts clients and backends on other hosts than the balancer, for
// tests: network namespaces beside the test binary's own, which nstest.Main gives it.
//
//	two arms: client --- net --- balancer --- net --- backend
//	one arm:  client, balancer and backend on one net
//
// Client and backend may each be behind a router, and further cables may lead from them
// to the balancer.
//
// The net is a namespace too, with a bridge for each subnet, and can lose, double and
// delay what it carries. No namespace has a name: all of it is gone with the process,
// however that ends.
package netrig

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/vmtest/lacks"
)

// Options say what is built.
type Options struct {
	OneArm bool
	// A router stands between the net and this host, which then has addresses beyond it.
	ClientRouter, BackendRouter bool
}

// Port is a place at which packets enter the net.
type Port int

// The ports. With one arm the balancer's two are the same one.
const (
	FromClient Port = iota
	FromBackend
	ToClient  // from the balancer
	ToBackend // likewise
)

func (p Port) String() string {
	return [...]string{"from-client", "from-backend", "to-client", "to-backend"}[p]
}

// Rig is the hosts and what joins them.
type Rig struct {
	Client, Backend *Host
	// Balancer is the test binary's own namespace. Its first device and addresses are
	// those toward the client, its last ones those toward the backend.
	Balancer *Host
	// ClientRouter and BackendRouter are nil without Options that ask for them. The first
	// device of each is on the net, the second leads to the host behind it.
	ClientRouter, BackendRouter *Host

	net   *Host // its devices are the ports
	ports []Port
}

// Addresses of hosts, by the last number: 198.18.N.x and fd00:N::x.
const (
	balancerFirst = 1
	clientFirst   = 2
	backendFirst  = 20
	addresses     = 8  // of the client and of the backend, each
	routerFirst   = 90 // of routers on a net, and one more for the second

	subnets = 50  // of all rigs at a time
	beyond  = 100 // is added to a subnet's number for what is behind its router
)

// New builds a rig that lasts as long as the test. Several may be there at a time.
func New(t testing.TB, o Options) *Rig {
	t.Helper()
	r, err := build(o)
	if errors.Is(err, unix.EPERM) {
		lacks.Skip(t, "root", err.Error())
	}
	if err != nil {
		t.Fatal("building a net: ", err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error("taking a net down: ", err)
		}
	})
	return r
}

func build(o Options) (_ *Rig, err error) {
	r := &Rig{ports: []Port{FromClient, FromBackend, ToClient, ToBackend}}
	if o.OneArm {
		r.ports = r.ports[:3]
	}
	defer func() {
		if err != nil {
			_ = r.Close()
		}
	}()
	if r.Balancer, err = here(); err != nil {
		return nil, err
	}
	for _, h := range []**Host{&r.Client, &r.Backend, &r.net} {
		if *h, err = newHost(); err != nil {
			return nil, err
		}
	}
	// Before its devices are there: the net itself speaks no IPv6.
	if err := r.net.sysctl("ipv6/conf/default/disable_ipv6", "1"); err != nil {
		return nil, err
	}
	// The balancer's cables come first: which numbers are free is seen in its namespace.
	clientNet, err := r.claim(ToClient)
	if err != nil {
		return nil, err
	}
	backendNet := clientNet
	if !o.OneArm {
		if backendNet, err = r.claim(ToBackend); err != nil {
			return nil, err
		}
	}
	if err := r.attach(r.Client, &r.ClientRouter, o.ClientRouter, FromClient, clientNet, clientFirst); err != nil {
		return nil, fmt.Errorf("the client's cable: %w", err)
	}
	if err := r.attach(r.Backend, &r.BackendRouter, o.BackendRouter, FromBackend, backendNet, backendFirst); err != nil {
		return nil, fmt.Errorf("the backend's cable: %w", err)
	}
	return r, r.ready()
}

// claim cables the balancer to a subnet whose number no other rig has.
func (r *Rig) claim(p Port) (subnet int, err error) {
	for subnet = 1; subnet <= subnets; subnet++ {
		if err = r.cable(r.Balancer, p, subnet, balancerFirst, 1); !errors.Is(err, unix.EEXIST) {
			break
		}
	}
	if err != nil {
		return 0, fmt.Errorf("the balancer's cable %s: %w", p, err)
	}
	return subnet, nil
}

// cable joins a host to a subnet's bridge, and gives it addresses there.
func (r *Rig) cable(h *Host, p Port, subnet, first, n int) error {
	bridge, end, device := fmt.Sprintf("subnet%d", subnet), p.String(), fmt.Sprintf("net%d", subnet)
	err := r.net.Do(func() error {
		v := &netlink.Veth{LinkAttrs: attrs(end), PeerName: device, PeerNamespace: netlink.NsFd(h.ns.Fd())}
		if err := netlink.LinkAdd(v); err != nil {
			return err
		}
		b, err := netlink.LinkByName(bridge)
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			if err = netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs(bridge)}); err == nil {
				err = setUp(bridge)
			}
			if err == nil {
				b, err = netlink.LinkByName(bridge)
			}
		}
		if err == nil {
			err = netlink.LinkSetMaster(v, b)
		}
		if err != nil {
			return err
		}
		return setUp(end)
	})
	if err != nil {
		return err
	}
	r.net.Devices = append(r.net.Devices, end)
	return h.address(device, subnet, first, n)
}

// address gives the host n addresses of a subnet on one of its devices, and sets that
// up. The balancer knows them as the host's.
func (h *Host) address(device string, subnet, first, n int) error {
	h.Devices = append(h.Devices, device)
	for i := range n {
		h.V4, h.V6 = append(h.V4, address4(subnet, first+i)), append(h.V6, address6(subnet, first+i))
	}
	return h.hold(device, subnet, first, n)
}

// hold has a device hold n addresses, and sets it up.
func (h *Host) hold(device string, subnet, first, n int) error {
	return h.Do(func() error {
		l, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		for i := range n {
			for _, a := range []netip.Addr{address4(subnet, first+i), address6(subnet, first+i)} {
				// Nobody else has the address: no time is lost with finding that out.
				if err := netlink.AddrAdd(l, &netlink.Addr{IPNet: ipNet(a, subnetBits(a)), Flags: unix.IFA_F_NODAD}); err != nil {
					return fmt.Errorf("address %s: %w", a, err)
				}
			}
		}
		return netlink.LinkSetUp(l)
	})
}

// subnetBits is the length of the prefix of a subnet of the address's family.
func subnetBits(a netip.Addr) int {
	if a.Is4() {
		return 24
	}
	return 64
}

func ipNet(a netip.Addr, bits int) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())}
}

func address4(subnet, last int) netip.Addr {
	return netip.AddrFrom4([4]byte{198, 18, byte(subnet), byte(last)})
}

func address6(subnet, last int) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfd, 3: byte(subnet), 15: byte(last)})
}

// ready waits until every device carries packets: the kernel finds its carrier a
// while after it is set up.
func (r *Rig) ready() error {
	for _, h := range r.hosts() {
		for _, d := range h.Devices {
			if err := h.Do(func() error { return carries(d) }); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *Rig) hosts() (all []*Host) {
	for _, h := range []*Host{r.net, r.Client, r.ClientRouter, r.Backend, r.BackendRouter, r.Balancer} {
		if h != nil {
			all = append(all, h)
		}
	}
	return all
}

// Close takes the devices away, and the namespaces: they live on until the last of
// their sockets is closed. A test that used New leaves it to that.
func (r *Rig) Close() error {
	var errs []error
	for _, h := range []*Host{r.net, r.ClientRouter, r.BackendRouter} {
		if h == nil {
			continue
		}
		// A cable's other end goes with it.
		errs = append(errs, h.Do(func() error {
			links, err := netlink.LinkList()
			for _, l := range links {
				if l.Type() == "veth" {
					err = errors.Join(err, netlink.LinkDel(l))
				}
			}
			return err
		}))
	}
	for _, h := range r.hosts() {
		errs = append(errs, h.close())
	}
	return errors.Join(errs...)
}

// Front is the balancer's address toward the client.
func (r *Rig) Front(v6 bool) netip.Addr {
	if v6 {
		return r.Balancer.V6[0]
	}
	return r.Balancer.V4[0]
}
