// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// prefix begins the names of our namespaces; the harness's process id follows.
const prefix = "sl-bench-"

// The addresses that all links share: clients come from sourceNet, backends
// are in backendNet, all of each on one host, as local routes.
const (
	sourceNet  = "198.18.0.0/24"
	backendNet = "198.19.0.0/16"
)

// Lab is a client host, a backend host, and between them a balancer host for
// each contender, so that contenders neither share a kernel table nor wait
// for one another.
type Lab struct {
	Client, Backend *Host
	Balancers       []*Host
	files           []*os.File // of tun devices
	wanted          string     // congestion control; empty: the usual one
}

// New makes the hosts. The first balancer routes; it is the way of what goes
// from the client to the backends directly. congestion names TCP's congestion
// control; empty: cubic, or what is most like it.
func New(balancers int, congestion string) (*Lab, error) {
	removeStale()
	l := &Lab{wanted: congestion}
	if err := l.build(balancers); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Lab) build(balancers int) error {
	var err error
	if l.Client, err = l.host("client"); err != nil {
		return err
	}
	if l.Backend, err = l.host("backend"); err != nil {
		return err
	}
	if err := errors.Join(localRoute(l.Client, sourceNet), localRoute(l.Backend, backendNet)); err != nil {
		return err
	}
	for i := range balancers {
		h, err := l.host(fmt.Sprintf("lb%d", i))
		if err != nil {
			return err
		}
		l.Balancers = append(l.Balancers, h)
		if err := l.join(i, h); err != nil {
			return err
		}
	}
	return l.Balancers[0].Sysctl("ipv4/ip_forward", "1")
}

func (l *Lab) host(role string) (*Host, error) {
	h, err := newHost(fmt.Sprintf("%s%d-%s", prefix, os.Getpid(), role))
	if err != nil {
		return nil, err
	}
	sysctls := [][2]string{
		{"ipv6/conf/all/disable_ipv6", "1"}, // no address detection in the background
		{"ipv4/conf/all/rp_filter", "0"},
		{"ipv4/conf/default/rp_filter", "0"},
		{"ipv4/ip_local_port_range", "1024 65535"},
		{"ipv4/tcp_tw_reuse", "1"},
		{"ipv4/tcp_max_tw_buckets", "1000000"},
		{"ipv4/tcp_max_syn_backlog", "8192"},
		{"ipv4/tcp_no_metrics_save", "1"}, // a round learns nothing from the last one
		{"core/somaxconn", "8192"},
	}
	for _, s := range sysctls {
		if err := h.Sysctl(s[0], s[1]); err != nil && !os.IsNotExist(err) {
			return nil, errors.Join(fmt.Errorf("%s: sysctl: %w", h.Name, err), h.close())
		}
	}
	if err := h.congestion(l.wanted); err != nil {
		return nil, errors.Join(err, h.close())
	}
	err = h.netlink(func(nl *netlink.Handle) error {
		lo, err := nl.LinkByName("lo")
		if err != nil {
			return err
		}
		return nl.LinkSetUp(lo)
	})
	if err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

// LossyLink, in the place of a congestion control's name, is for a link that
// loses packets.
const LossyLink = "lossy"

// ErrCongestion says that a congestion control isn't to be had here: the kernel
// has none of that name, or keeps it from namespaces.
var ErrCongestion = errors.New("not to be had on this machine (net.ipv4.tcp_allowed_congestion_control)")

// congestion sets TCP's congestion control. Without a wish it is cubic, the usual
// one, whatever this machine prefers; a kernel lets a namespace have only what
// its own administrator allows, and where that isn't cubic it is reno: without
// loss they do the same and cost the same, whereas BBR paces, at the price of a
// timer for each packet. It stays as it is where neither is allowed, and on a
// lossy link, where reno crawls.
func (h *Host) congestion(wanted string) error {
	const key = "ipv4/tcp_congestion_control"
	choice := []string{"cubic", "reno"}
	switch wanted {
	case "":
	case LossyLink:
		choice = choice[:1]
	default:
		if err := h.Sysctl(key, wanted); err != nil {
			return fmt.Errorf("%s: TCP congestion control %s: %w: %w", h.Name, wanted, ErrCongestion, err)
		}
		return nil
	}
	for _, name := range choice {
		err := h.Sysctl(key, name)
		if err == nil || !os.IsNotExist(err) && !os.IsPermission(err) {
			return err
		}
	}
	return nil
}

// Congestion is TCP's congestion control on all hosts.
func (l *Lab) Congestion() (name string, err error) {
	err = l.Client.Do(func() error {
		data, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
		name = strings.TrimSpace(string(data))
		return err
	})
	return name, err
}

// localRoute makes each address of a network one of the host's own.
func localRoute(h *Host, network string) error {
	return h.netlink(func(nl *netlink.Handle) error {
		lo, err := nl.LinkByName("lo")
		if err != nil {
			return err
		}
		_, dst, err := net.ParseCIDR(network)
		if err != nil {
			return err
		}
		return nl.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: dst,
			Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST})
	})
}

// FrontAddr is balancer i's address on its client's side.
func FrontAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 18, byte(100 + i), 2}) }

// BackendAddrs are the addresses of n backends.
func BackendAddrs(n int) []netip.Addr {
	addrs := make([]netip.Addr, n)
	for i := range addrs {
		addrs[i] = netip.AddrFrom4([4]byte{198, 19, byte(i / 250), byte(i%250 + 1)})
	}
	return addrs
}

// SourceAddrs are n addresses of the client.
func SourceAddrs(n int) []netip.Addr {
	addrs := make([]netip.Addr, n)
	for i := range addrs {
		addrs[i] = netip.AddrFrom4([4]byte{198, 18, 0, byte(i + 1)})
	}
	return addrs
}

// join connects balancer i with the client and the backend.
func (l *Lab) join(i int, h *Host) error {
	front, back := FrontAddr(i), netip.AddrFrom4([4]byte{198, 18, byte(180 + i), 1})
	name := fmt.Sprintf("sl-%d", i)
	if err := link(l.Client, name, front.Prev(), h, "sl-front", front); err != nil {
		return err
	}
	if err := link(h, "sl-back", back, l.Backend, name, back.Next()); err != nil {
		return err
	}
	if err := route(h, backendNet, back.Next()); err != nil {
		return err
	}
	if err := route(h, sourceNet, front.Prev()); err != nil {
		return err
	}
	if i > 0 {
		return nil
	}
	return errors.Join(route(l.Client, backendNet, front), route(l.Backend, sourceNet, back),
		route(l.Backend, front.Prev().String()+"/32", back))
}

func link(a *Host, nameA string, addrA netip.Addr, b *Host, nameB string, addrB netip.Addr) error {
	err := a.netlink(func(nl *netlink.Handle) error {
		return nl.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: nameA, MTU: 1500},
			PeerName: nameB, PeerNamespace: netlink.NsFd(b.ns)})
	})
	if err != nil {
		return fmt.Errorf("making a veth pair: %w", err)
	}
	return errors.Join(address(a, nameA, addrA), address(b, nameB, addrB))
}

func address(h *Host, name string, addr netip.Addr) error {
	return h.netlink(func(nl *netlink.Handle) error {
		dev, err := nl.LinkByName(name)
		if err != nil {
			return err
		}
		ip := &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(30, 32)}
		if err := nl.AddrAdd(dev, &netlink.Addr{IPNet: ip}); err != nil {
			return err
		}
		return nl.LinkSetUp(dev)
	})
}

func route(h *Host, network string, via netip.Addr) error {
	return h.netlink(func(nl *netlink.Handle) error {
		_, dst, err := net.ParseCIDR(network)
		if err != nil {
			return err
		}
		return nl.RouteAdd(&netlink.Route{Dst: dst, Gw: via.AsSlice()})
	})
}

// Close ends the processes and removes the hosts.
func (l *Lab) Close() error {
	var errs []error
	for _, f := range l.files {
		errs = append(errs, f.Close())
	}
	for _, h := range append([]*Host{l.Client}, append(l.Balancers, l.Backend)...) {
		if h != nil {
			errs = append(errs, h.close())
		}
	}
	return errors.Join(errs...)
}
