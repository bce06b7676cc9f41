// SPDX-License-Identifier: Apache-2.0

package config

import (
	"strings"
	"time"
)

// Defaults of a backend.
const (
	DefaultWeight      = 1
	DefaultMaxFails    = 1
	DefaultFailTimeout = 10 * time.Second
)

const nameRule = "a name of 1 to 255 bytes in one line"

func (n *node) has(key string) bool { return n.get(key) != nil }

// get returns the first pair of that key, or nil.
func (n *node) get(key string) *pair {
	for i := range n.pairs {
		if n.pairs[i].key == key {
			return &n.pairs[i]
		}
	}
	return nil
}

func goodName(s string) bool {
	return s != "" && len(s) <= 255 && strings.TrimSpace(s) == s && !strings.ContainsFunc(s, isControl)
}

// pools reads the mapping of names to pools.
func (d *decoder) pools(p pair) []*Pool {
	if p.value.kind == nullKind {
		return nil
	}
	if p.value.kind != mapKind {
		d.fail(p.value.pos, "pools is %s, must be a mapping of names to pools", describe(p.value))
		return nil
	}
	var all []*Pool
	first := map[string]Position{}
	for _, p := range p.value.pairs {
		if !d.visit() {
			break
		}
		if at, twice := first[p.key]; twice {
			d.fail(p.keyPos, "pool %s is defined twice, must have a name of its own: first at %d:%d", quote(p.key), at.Line, at.Column)
			continue
		}
		first[p.key] = p.keyPos
		if !goodName(p.key) {
			d.fail(p.keyPos, "pool name is %s, must be %s", quote(p.key), nameRule)
		}
		all = append(all, d.pool(p))
	}
	return all
}

func newPool(name string, at Position) *Pool {
	return &Pool{Name: name, Balance: RoundRobin, TryEjected: true, Pos: at}
}

// pool reads one pool; the key is its name.
func (d *decoder) pool(p pair) *Pool {
	pool := newPool(p.key, p.keyPos)
	what := "pool " + quote(p.key)
	ejected := "try"
	d.fields(p.value, what, []field{
		{"balance", func(p pair) { choice(d, p, &pool.Balance, RoundRobin, LeastConn, RandomTwo, Hash) }},
		{"all_ejected", func(p pair) { choice(d, p, &ejected, "try", "fail") }},
		{"on_remove", func(p pair) { d.onRemove(p, pool) }},
		{"backends", func(p pair) { d.backends(p, pool) }},
	})
	pool.TryEjected = ejected == "try"
	if (p.value.kind == nullKind || p.value.kind == mapKind) && !p.value.has("backends") {
		d.fail(p.keyPos, "%s has no backends, must have one at least", what)
	}
	return pool
}

// onRemove reads a word, or how long to drain before what is left is closed.
func (d *decoder) onRemove(p pair, pool *Pool) {
	const must = "drain, close, or a duration to drain for such as 30s"
	s, ok := d.text(p.value, p.key, must)
	if !ok {
		return
	}
	pool.CloseOnRemove, pool.CloseAfter = s == "close", 0
	if s == "drain" || s == "close" {
		return
	}
	if _, err := time.ParseDuration(s); err != nil {
		d.fail(p.value.pos, "%s is %s, must be %s", p.key, quote(s), must)
		return
	}
	d.duration(p, "", 1, maxDuration, &pool.CloseAfter)
}

// backends reads a list of backends in short and long form into a pool.
func (d *decoder) backends(p pair, pool *Pool) {
	first := map[Address]Position{}
	empty := p.value.kind == nullKind || p.value.kind == listKind && len(p.value.items) == 0
	if empty {
		d.fail(p.keyPos, "pool %s has no backends, must have one at least", quote(pool.Name))
	}
	d.list(p, "addresses or mappings with address", func(n *node) {
		b, at, ok := d.backend(n)
		if ok {
			if before, twice := first[b.Address.same()]; twice {
				d.fail(at, "backend %s is twice in pool %s, must be once: first at %d:%d",
					quote(b.Address.String()), quote(pool.Name), before.Line, before.Column)
			} else {
				first[b.Address.same()] = at
			}
		}
		pool.Backends = append(pool.Backends, b)
	})
}

// backend reads one backend; at is the place of its address, and ok tells
// whether it has a valid one.
func (d *decoder) backend(n *node) (b Backend, at Position, ok bool) {
	b = Backend{Weight: DefaultWeight, MaxFails: DefaultMaxFails, FailTimeout: DefaultFailTimeout, State: Up, Pos: n.pos}
	address := func(n *node) {
		at = n.pos
		s, is := d.text(n, "backend address", backendForms)
		if !is {
			return
		}
		a, err := ParseBackend(s)
		if err != nil {
			d.fail(n.pos, "backend address %s: %v", quote(s), err)
			return
		}
		b.Address, b.Pos, ok = a, n.pos, true
	}
	if n.kind == textKind || n.kind == nullKind || n.kind == listKind {
		address(n)
		return b, at, ok
	}
	d.fields(n, "a backend", []field{
		{"address", func(p pair) { address(p.value) }},
		{"weight", func(p pair) { d.integer(p, 1, 65535, &b.Weight) }},
		{"max_fails", func(p pair) { d.integer(p, 0, maxInt, &b.MaxFails) }},
		{"fail_timeout", func(p pair) { d.duration(p, "", 1, maxDuration, &b.FailTimeout) }},
		{"max_conns", func(p pair) { d.integer(p, 0, maxInt, &b.MaxConns) }},
		{"backup", func(p pair) { d.boolean(p, &b.Backup) }},
		{"state", func(p pair) { choice(d, p, &b.State, Up, Drain, Down) }},
		{"slow_start", func(p pair) { d.duration(p, "its share at once", 1, maxDuration, &b.SlowStart) }},
	})
	if !n.has("address") && !n.has("srv") {
		d.fail(n.pos, "a backend has no address, must have "+backendForms)
	}
	return b, at, ok
}
