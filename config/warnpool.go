// SPDX-License-Identifier: Apache-2.0

package config

// pools looks at each pool, wherever it is written.
func (w *warner) pools() {
	users := w.poolUsers()
	named := w.root.value("pools").pairs
	for i, p := range w.c.Pools {
		if i >= len(named) { // those written in listeners come after
			w.pool(p, w.inline(p.Name))
			continue
		}
		w.pool(p, named[i].value.value("backends"))
		switch users[p.Name] {
		case unused:
			w.warn(p.Pos, "no listener uses pool %s", quote(p.Name))
		case byListener:
			if len(p.Backends) == 1 && p.single(0) {
				w.warn(p.Pos, "pool %s has one backend, so there is nothing to balance, and nobody in its place when it fails", quote(p.Name))
			}
		}
	}
}

// inline are the backends of the listener that has this pool written in it.
func (w *warner) inline(name string) *node {
	for i, l := range w.c.Listeners {
		if l.Name == name {
			return w.root.value("listeners").item(i).value("backends")
		}
	}
	return &node{}
}

// The ways in which a pool is used.
const (
	unused     = iota
	byListener // by one, whose backends it could be
	shared     // by several, by a route, or by a listener of its name, as --dump writes one that was written in it
)

// poolUsers tells how each pool is used: under every key `pool` of the listeners
// and of what is within them.
func (w *warner) poolUsers() map[string]int {
	users := map[string]int{}
	for _, l := range w.root.value("listeners").items {
		for _, p := range l.pairs {
			switch {
			case p.key == "pool" && (users[p.value.text] != unused || p.value.text == l.value("name").text):
				users[p.value.text] = shared
			case p.key == "pool":
				users[p.value.text] = byListener
			case p.value.kind == listKind:
				for _, item := range p.value.items {
					if route := item.value("pool"); route.kind == textKind {
						users[route.text] = shared
					}
				}
			}
		}
	}
	return users
}

// single tells whether a backend is one address, not a name that may have several.
func (p *Pool) single(i int) bool {
	return p.Backends[i].Address.Name == "" && p.Backends[i].Address != Address{}
}

// pool looks at the backends of one; list is how they are written.
func (w *warner) pool(p *Pool, list *node) {
	primaries, up, last := 0, 0, 0
	for i, b := range p.Backends {
		if !b.Backup {
			primaries, last = primaries+1, i
		}
		if b.State == Up {
			up++
		}
	}
	if up == 0 {
		w.warn(p.Pos, "all backends of pool %s are down or draining, so it serves nobody", quote(p.Name))
	}
	if primaries == 0 {
		w.warn(p.Pos, "all backends of pool %s are backups: without one that isn't, `backup` changes nothing", quote(p.Name))
	}
	if primaries == 1 && p.single(last) {
		if at := list.item(last).get("weight"); at != nil && p.Backends[last].Weight != DefaultWeight {
			w.warn(at.keyPos, "weight of the only backend of pool %s that isn't a backup changes nothing", quote(p.Name))
		}
	}
	for i, b := range p.Backends {
		n := list.item(i)
		if at := n.get("fail_timeout"); at != nil && b.MaxFails == 0 && b.FailTimeout != DefaultFailTimeout {
			w.warn(at.keyPos, "fail_timeout changes nothing with max_fails: 0, which never ejects the backend")
		}
		if len(p.Backends) != 1 || !p.single(i) {
			continue
		}
		for key, written := range map[string]bool{
			"max_fails":    b.MaxFails > DefaultMaxFails,
			"fail_timeout": b.MaxFails > 0 && b.FailTimeout != DefaultFailTimeout,
			"slow_start":   b.SlowStart > 0,
		} {
			if at := n.get(key); at != nil && written {
				w.warn(at.keyPos, "%s changes nothing for the only backend of pool %s, which is never ejected", key, quote(p.Name))
			}
		}
	}
}
