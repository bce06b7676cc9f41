// SPDX-License-Identifier: Apache-2.0

package config

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
