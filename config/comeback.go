// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"
	"slices"
	"strings"
)

// comeBack finds backends that are one of the file's own listen addresses: a
// session of theirs would be accepted here again, and again, until no
// descriptor is left. Which addresses a wildcard has on this host isn't known
// here, loopback aside.
func (d *decoder) comeBack(c *Config, f *fronts) {
	users := map[string][]*Listener{}
	for _, l := range c.Listeners {
		for _, name := range l.pools() {
			users[name] = append(users[name], l)
		}
	}
	for _, p := range c.Pools {
		var in *arrivals // made for the first backend that needs it
		for i := range p.Backends {
			b := &p.Backends[i]
			switch {
			case b.Address == Address{}: // refused already
			case !b.Address.Portless():
				if at := f.owner(b.Address); at != nil {
					d.fail(b.Pos, "backend %s is a listen address of this file, at %s: its sessions would come back for ever, must be another address",
						quote(b.Address.String()), placeOf(at.pos))
				}
			default:
				if in == nil {
					in = f.arrivals(users[p.Name])
					d.needPorts(p, b, users[p.Name])
				}
				if at := f.ownerOnAny(b.Address, in); at != nil {
					d.fail(b.Pos, "backend %s gets the port that a client came to, and with port %d is a listen address of this file, at %s: "+
						"its sessions would come back for ever, must be another address",
						quote(b.Address.String()), at.address.Port, placeOf(at.pos))
				}
			}
		}
	}
}

// needPorts refuses unix sockets in front of a pool with b, which has no port,
// and calls, which come to no port of their own.
func (d *decoder) needPorts(p *Pool, b *Backend, users []*Listener) {
	for _, l := range users {
		if l.GRPC != nil {
			d.fail(b.Pos, "backend %s has no port, and listener %s is of protocol grpc, which takes none from its clients, must be with a port",
				quote(b.Address.String()), quote(l.Name))
			continue
		}
		for i, a := range l.Listen {
			if a.Path != "" {
				d.fail(l.ListenPos[i], "listen address %s: a client of a unix socket comes to no port, and backend %s of pool %s at %s has none, "+
					"must be a TCP address, or the backend with a port",
					quote(a.String()), quote(b.Address.String()), quote(p.Name), placeOf(b.Pos))
			}
		}
	}
}

// owner returns what listens on an address of this host, or nil.
func (f *fronts) owner(a Address) *bound {
	if b := f.exact[a.same()]; b != nil {
		return b
	}
	if ip := loopback(a); ip.IsValid() {
		return f.ports[a.Port].takes(ip)
	}
	return nil
}

// loopback is the loopback address that a is, else no address. A wildcard of
// both families takes localhost whichever of its addresses is dialled, so ::1
// stands for it.
func loopback(a Address) netip.Addr {
	switch {
	case strings.EqualFold(strings.TrimSuffix(a.Name, "."), "localhost"):
		return netip.IPv6Loopback()
	case a.Addr.IsLoopback():
		return a.Addr
	}
	return netip.Addr{}
}

// takes returns the wildcard that takes connections to ip on this port, or nil.
func (p *onPort) takes(ip netip.Addr) *bound {
	switch {
	case p == nil:
		return nil
	case p.both != nil || ip.Is6():
		return p.both
	}
	return p.v4
}

// arrivals are the ports that the clients of a pool come to.
type arrivals struct {
	ports []uint16 // each once, rising
	has   map[uint16]bool
	four  *bound // a wildcard on one of them that takes 127.0.0.1
	six   *bound // one that takes ::1
}

func (f *fronts) arrivals(users []*Listener) *arrivals {
	in := &arrivals{has: map[uint16]bool{}}
	for _, l := range users {
		for _, a := range l.Listen {
			if a.Path == "" && !in.has[a.Port] {
				in.has[a.Port] = true
				in.ports = append(in.ports, a.Port)
			}
		}
	}
	slices.Sort(in.ports)
	for _, port := range in.ports {
		if in.four == nil {
			in.four = f.ports[port].takes(netip.AddrFrom4([4]byte{127, 0, 0, 1}))
		}
		if in.six == nil {
			in.six = f.ports[port].takes(netip.IPv6Loopback())
		}
	}
	return in
}

// ownerOnAny returns what listens on a host and one of these ports, or nil.
// It walks the shorter of the two lists of ports, so that a file of many hosts
// and many ports isn't looked at for each pair of them.
func (f *fronts) ownerOnAny(a Address, in *arrivals) *bound {
	if ip := loopback(a); ip.IsValid() {
		wildcard := in.six
		if ip.Is4() {
			wildcard = in.four
		}
		if wildcard != nil {
			return wildcard
		}
	}
	own := f.hosts[a.Addr]
	if len(own) <= len(in.ports) {
		for _, b := range own {
			if in.has[b.address.Port] {
				return b
			}
		}
		return nil
	}
	for _, port := range in.ports {
		if b := f.exact[Address{Addr: a.Addr, Port: port}]; b != nil {
			return b
		}
	}
	return nil
}
