// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"
	"strconv"
)

// bound is an address and who listens on it.
type bound struct {
	address Address
	pos     Position
	whose   string
}

// onPort is what listens on one port.
type onPort struct{ both, v4, firstV4, first *bound }

// fronts is everything that the file listens on.
type fronts struct {
	exact map[Address]*bound
	ports map[uint16]*onPort
	hosts map[netip.Addr][]*bound // single addresses, wildcards aside
	told  map[[2]Position]bool    // places that clash: two ranges do so once, not on each port
}

// overlaps finds addresses that can't be bound beside each other, and backends
// that lead back to one.
func (d *decoder) overlaps(c *Config) {
	f := &fronts{
		exact: map[Address]*bound{}, ports: map[uint16]*onPort{},
		hosts: map[netip.Addr][]*bound{}, told: map[[2]Position]bool{},
	}
	for _, l := range c.Listeners {
		for i, a := range l.Listen {
			d.bindCheck(f, &bound{a, l.ListenPos[i], "listen address " + quote(a.String())})
		}
	}
	d.comeBack(c, f)
	switch s := &c.Stats; {
	case s.Off:
	case s.Explicit:
		d.bindCheck(f, &bound{s.Address, s.Pos, "stats address " + quote(s.Address.String())})
	default:
		b := &bound{address: s.Address}
		before := f.exact[s.Address.same()]
		if before == nil && f.ports[s.Address.Port] != nil {
			before = f.ports[s.Address.Port].clash(b)
		}
		if before != nil {
			d.fail(before.pos, "%s takes the default address of stats, must be another port, or stats must be written: another address, or off", before.whose)
		}
	}
}

func (d *decoder) bindCheck(f *fronts, b *bound) {
	key := b.address.same()
	if before := f.exact[key]; before != nil {
		if f.tell(b, before) {
			d.fail(b.pos, "%s is used twice, must be once: first at %s", b.whose, placeOf(before.pos))
		}
		return
	}
	f.exact[key] = b
	if b.address.Path != "" {
		return
	}
	if a := b.address; !a.Wildcard() {
		f.hosts[a.Addr] = append(f.hosts[a.Addr], b)
	}
	p := f.ports[b.address.Port]
	if p == nil {
		p = &onPort{}
		f.ports[b.address.Port] = p
	}
	if clash := p.clash(b); clash != nil {
		if f.tell(b, clash) {
			d.fail(b.pos, "%s overlaps with %s at %s, must be one of the two or another port: a wildcard takes all addresses of port %s",
				b.whose, quote(clash.address.String()), placeOf(clash.pos), strconv.Itoa(int(b.address.Port)))
		}
		return
	}
	p.add(b)
}

// tell says whether a clash of these two places is news.
func (f *fronts) tell(b, before *bound) bool {
	key := [2]Position{b.pos, before.pos}
	old := f.told[key]
	f.told[key] = true
	return !old
}

// clash returns what b can't be bound beside, or nil.
func (p *onPort) clash(b *bound) *bound {
	is4 := b.address.Addr.Is4()
	switch {
	case p.both != nil:
		return p.both
	case b.address.Any:
		return p.first
	case is4 && b.address.Wildcard():
		return p.firstV4
	case is4:
		return p.v4
	}
	return nil
}

func (p *onPort) add(b *bound) {
	is4 := b.address.Addr.Is4()
	if p.first == nil {
		p.first = b
	}
	if is4 && p.firstV4 == nil {
		p.firstV4 = b
	}
	if b.address.Any {
		p.both = b
	}
	if is4 && b.address.Wildcard() {
		p.v4 = b
	}
}
