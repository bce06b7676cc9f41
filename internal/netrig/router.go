// SPDX-License-Identifier: Apache-2.0

package netrig

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// attach joins a host to a subnet, by a router if there is to be one.
func (r *Rig) attach(h *Host, router **Host, routed bool, p Port, subnet, first int) error {
	if !routed {
		return r.cable(h, p, subnet, first, addresses)
	}
	on, err := newHost()
	if err != nil {
		return err
	}
	*router = on
	// A router asks for a neighbour by its link-local address, which no time is lost
	// with finding out to be nobody else's.
	for name, value := range map[string]string{"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1", "ipv6/conf/all/accept_dad": "0", "ipv6/conf/default/accept_dad": "0"} {
		if err := on.sysctl(name, value); err != nil {
			return err
		}
	}
	if err := r.cable(on, p, subnet, routerFirst+int(p), 1); err != nil {
		return err
	}
	far := subnet + beyond
	if p == FromBackend { // on one net there are two
		far += subnets
	}
	device := fmt.Sprintf("net%d", far)
	if err := wire(on, device, h, device); err != nil {
		return err
	}
	if err := errors.Join(on.address(device, far, balancerFirst, 1), h.address(device, far, first, addresses)); err != nil {
		return err
	}
	for i, to := range []netip.Addr{address4(far, 0), address6(far, 0)} {
		near, back := []netip.Addr{on.V4[0], on.V6[0]}[i], []netip.Addr{on.V4[1], on.V6[1]}[i]
		any := []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}[i]
		if err := errors.Join(
			r.Balancer.AddRoute(Route{To: netip.PrefixFrom(to, subnetBits(to)), Device: fmt.Sprintf("net%d", subnet), Gateway: near}),
			h.AddRoute(Route{To: netip.PrefixFrom(any, 0), Device: device, Gateway: back}),
		); err != nil {
			return err
		}
	}
	return nil
}

// wire joins two hosts by a cable of their own.
func wire(a *Host, aDevice string, b *Host, bDevice string) error {
	return a.Do(func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs(aDevice), PeerName: bDevice, PeerNamespace: netlink.NsFd(b.ns.Fd())})
	})
}

// Route is a way of a host to a prefix.
type Route struct {
	To      netip.Prefix
	Device  string
	Gateway netip.Addr // not valid: none, they are on the device
	Source  netip.Addr // of connections that don't say which; not valid: the kernel's choice
	Metric  int        // the least is used
}

// AddRoute has the host use a route; DelRoute has it forget that.
func (h *Host) AddRoute(r Route) error { return h.route(r, netlink.RouteAdd) }

// DelRoute takes away what AddRoute added.
func (h *Host) DelRoute(r Route) error { return h.route(r, netlink.RouteDel) }

func (h *Host) route(r Route, change func(*netlink.Route) error) error {
	return h.Do(func() error {
		l, err := netlink.LinkByName(r.Device)
		if err != nil {
			return err
		}
		way := &netlink.Route{Dst: ipNet(r.To.Addr(), r.To.Bits()), LinkIndex: l.Attrs().Index, Priority: r.Metric}
		if r.Gateway.IsValid() {
			way.Gw = r.Gateway.AsSlice()
		}
		if r.Source.IsValid() {
			way.Src = r.Source.AsSlice()
		}
		if err := change(way); err != nil {
			return fmt.Errorf("a route to %s by %s: %w", r.To, r.Device, err)
		}
		return nil
	})
}

// Down sets one of the host's devices down, so that it loses its routes, and its
// addresses of IPv6. up sets it up again, with all that it had, and returns once it
// carries packets.
func (h *Host) Down(device string) (up func() error, err error) {
	var addrs []netlink.Addr
	var routes []netlink.Route
	err = h.Do(func() error {
		l, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		if addrs, err = netlink.AddrList(l, netlink.FAMILY_V6); err != nil {
			return err
		}
		if routes, err = netlink.RouteList(l, netlink.FAMILY_ALL); err != nil {
			return err
		}
		return netlink.LinkSetDown(l)
	})
	return func() error {
		return h.Do(func() error {
			l, err := netlink.LinkByName(device)
			if err != nil {
				return err
			}
			if err := netlink.LinkSetUp(l); err != nil {
				return err
			}
			if err := carries(device); err != nil { // until then its gateways can't be reached
				return err
			}
			for _, a := range addrs {
				if a.IP.IsLinkLocalUnicast() {
					continue // the kernel's
				}
				a.Flags = unix.IFA_F_NODAD
				if err := netlink.AddrReplace(l, &a); err != nil {
					return fmt.Errorf("address %s: %w", a.IPNet, err)
				}
			}
			for _, r := range routes {
				if r.Protocol == unix.RTPROT_KERNEL {
					continue // likewise
				}
				r.Flags &^= unix.RTNH_F_DEAD | unix.RTNH_F_LINKDOWN // as it was where the other end was down before
				if err := netlink.RouteReplace(&r); err != nil {
					return fmt.Errorf("the route %s: %w", r, err)
				}
			}
			return nil
		})
	}, err
}

// Metrics has connections of the host, by whichever of its routes, go by what change
// makes of the routes' metrics, for the test's time.
func (h *Host) Metrics(t testing.TB, change func(*netlink.Route)) {
	t.Helper()
	var before []netlink.Route
	replace := func(all []netlink.Route, change func(*netlink.Route)) error {
		return h.Do(func() error {
			for _, way := range all {
				change(&way)
				if err := netlink.RouteReplace(&way); err != nil {
					return fmt.Errorf("the route %s: %w", way, err)
				}
			}
			return nil
		})
	}
	err := h.Do(func() (err error) {
		before, err = netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		return err
	})
	if err == nil {
		err = replace(before, change)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := replace(before, func(*netlink.Route) {}); err != nil {
			t.Error(err)
		}
	})
}

// SubnetMTU sets that of all that is between the balancer and the client, or the
// backend, for the test's time: both devices and the net.
func (r *Rig) SubnetMTU(t testing.TB, h *Host, n int) {
	t.Helper()
	ports, own := []Port{FromClient, ToClient}, r.Balancer.Devices[0]
	if h == r.Backend {
		ports, own = []Port{FromBackend, ToBackend}, r.Balancer.Devices[len(r.Balancer.Devices)-1]
	}
	for _, p := range ports {
		if int(p) < len(r.ports) {
			r.net.MTU(t, p.String(), n)
		}
	}
	r.Balancer.MTU(t, own, n)
	for _, d := range h.Devices {
		h.MTU(t, d, n)
	}
}

// Way is a further cable between the balancer and a host.
type Way struct {
	Here, There    string // its devices: the balancer's and the host's
	Here4, Here6   netip.Addr
	There4, There6 netip.Addr
}

// Join lays one, for the test's time. No traffic goes by it before routes say so.
func (r *Rig) Join(t testing.TB, h *Host) *Way {
	t.Helper()
	w := &Way{}
	err := errors.New("no number is free")
	for subnet := 1; subnet <= subnets; subnet++ {
		w.Here = fmt.Sprintf("net%d", subnet)
		w.There = w.Here
		if err = wire(r.Balancer, w.Here, h, w.There); errors.Is(err, unix.EEXIST) {
			continue
		}
		w.Here4, w.There4 = address4(subnet, balancerFirst), address4(subnet, clientFirst)
		w.Here6, w.There6 = address6(subnet, balancerFirst), address6(subnet, clientFirst)
		if err == nil {
			t.Cleanup(func() {
				if err := r.Balancer.Do(func() error { return deleteLink(w.Here) }); err != nil {
					t.Error(err)
				}
			})
			err = errors.Join(r.Balancer.hold(w.Here, subnet, balancerFirst, 1), h.hold(w.There, subnet, clientFirst, 1),
				r.Balancer.Do(func() error { return carries(w.Here) }), h.Do(func() error { return carries(w.There) }))
		}
		break
	}
	if err != nil {
		t.Fatal("a further cable: ", err)
	}
	return w
}

func deleteLink(device string) error {
	l, err := netlink.LinkByName(device)
	if err == nil {
		err = netlink.LinkDel(l)
	}
	return err
}
