// SPDX-License-Identifier: Apache-2.0

package service

import (
	"net"
	"net/netip"

	"sluice/config"
)

// ownAddresses are those of this host.
type ownAddresses map[netip.Addr]bool

// hostAddresses asks the kernel for the addresses of all devices.
func hostAddresses() (ownAddresses, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	own := ownAddresses{}
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				own[ip.Unmap()] = true
			}
		}
	}
	return own, nil
}

// reaches says whether who connects to target arrives at a socket that is
// bound to front.
func (own ownAddresses) reaches(target netip.AddrPort, front config.Address) bool {
	ip := target.Addr()
	switch {
	case front.Path != "" || target.Port() != front.Port:
		return false
	case front.Any:
	case !front.Wildcard():
		return front.Addr == ip
	case front.Addr.Is4() != ip.Is4():
		return false
	}
	return ip.IsLoopback() || own[ip]
}

// targets are the addresses that a backend's sessions may go to: those of its
// name, and without a port of its own with each that a client of the pool
// comes to.
func targets(b config.Backend, fronts []config.Address, resolved map[string][]netip.Addr) []netip.AddrPort {
	ips := resolved[b.Address.Name]
	if b.Address.Name == "" && b.Address.Path == "" {
		ips = []netip.Addr{b.Address.Addr}
	}
	var out []netip.AddrPort
	for _, ip := range ips {
		if !b.Address.Portless() {
			out = append(out, netip.AddrPortFrom(ip, b.Address.Port))
			continue
		}
		for _, f := range fronts {
			out = append(out, netip.AddrPortFrom(ip, f.Port))
		}
	}
	return out
}

// fronted is a listen address and whose it is.
type fronted struct {
	config.Address
	listener string
}

// byPort sorts what is listened on by port, so that ranges can be compared.
func byPort(c *config.Config) map[uint16][]fronted {
	out := map[uint16][]fronted{}
	for _, l := range c.Listeners {
		for _, a := range l.Listen {
			out[a.Port] = append(out[a.Port], fronted{a, l.Name})
		}
	}
	return out
}
