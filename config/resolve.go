// SPDX-License-Identifier: Apache-2.0

package config

import "strconv"

// inlinePool is a pool that is written in its listener.
type inlinePool struct {
	listener *Listener
	pool     *Pool
}

// resolve ties listeners to pools, and checks that names are used once.
func (d *decoder) resolve(c *Config, inline []inlinePool) {
	pools := map[string]*Pool{}
	for _, p := range c.Pools {
		pools[p.Name] = p
	}
	names := map[string]*Listener{}
	for _, l := range c.Listeners {
		if before, twice := names[l.Name]; twice && l.Name != "" {
			d.fail(l.Pos, "listener name %s is used twice, must be unique: first at %s", quote(l.Name), placeOf(before.Pos))
		} else {
			names[l.Name] = l
		}
	}
	for _, in := range inline {
		if in.listener.Name == "" || names[in.listener.Name] != in.listener {
			continue
		}
		if before, taken := pools[in.pool.Name]; taken {
			d.fail(in.pool.Pos, "backends here make a pool %s, which is already defined at %s, must have another listener name, or pool: %s",
				quote(in.pool.Name), placeOf(before.Pos), clip(in.pool.Name))
			continue
		}
		pools[in.pool.Name] = in.pool
		c.Pools = append(c.Pools, in.pool)
	}
}

// checkPools finds listeners whose pool is defined nowhere; refs are the places
// where pools are named.
func (d *decoder) checkPools(c *Config, refs []poolRef) {
	var known []string
	have := map[string]bool{}
	for _, p := range c.Pools {
		known = append(known, p.Name)
		have[p.Name] = true
	}
	for _, r := range refs {
		switch {
		case have[r.name]:
		case nearest(r.name, known) != "":
			d.fail(r.pos, "pool %s is not defined%s", quote(r.name), hint(r.name, known, ""))
		default:
			d.fail(r.pos, "pool %s is not defined, must be a name under pools", quote(r.name))
		}
	}
}

// poolRef is a pool's name where a listener uses it.
type poolRef struct {
	name string
	pos  Position
}

// bound is an address and who listens on it.
type bound struct {
	address Address
	pos     Position
	whose   string
}

// onPort is what listens on one port.
type onPort struct{ both, v4, firstV4, first *bound }

// overlaps finds addresses that can't be bound beside each other.
func (d *decoder) overlaps(c *Config) {
	exact := map[Address]*bound{}
	ports := map[uint16]*onPort{}
	for _, l := range c.Listeners {
		for i, a := range l.Listen {
			d.bindCheck(exact, ports, &bound{a, l.ListenPos[i], "listen address " + quote(a.String())})
		}
	}
	switch s := &c.Stats; {
	case s.Off:
	case s.Explicit:
		d.bindCheck(exact, ports, &bound{s.Address, s.Pos, "stats address " + quote(s.Address.String())})
	default:
		b := &bound{address: s.Address}
		before := exact[s.Address.same()]
		if before == nil && ports[s.Address.Port] != nil {
			before = ports[s.Address.Port].clash(b)
		}
		if before != nil {
			d.fail(before.pos, "%s takes the default address of stats, must be another port, or stats must be written: another address, or off", before.whose)
		}
	}
}

func (d *decoder) bindCheck(exact map[Address]*bound, ports map[uint16]*onPort, b *bound) {
	key := b.address.same()
	if before := exact[key]; before != nil {
		d.fail(b.pos, "%s is used twice, must be once: first at %s", b.whose, placeOf(before.pos))
		return
	}
	exact[key] = b
	if b.address.Path != "" {
		return
	}
	p := ports[b.address.Port]
	if p == nil {
		p = &onPort{}
		ports[b.address.Port] = p
	}
	if clash := p.clash(b); clash != nil {
		d.fail(b.pos, "%s overlaps with %s at %s, must be one of the two or another port: a wildcard takes all addresses of port %s",
			b.whose, quote(clash.address.String()), placeOf(clash.pos), strconv.Itoa(int(b.address.Port)))
		return
	}
	p.add(b)
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
