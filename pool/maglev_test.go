// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"net/netip"
	"testing"

	"sluice/config"
)

func client(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

func equal(n int) (specs []Spec) {
	for i := range n {
		specs = append(specs, spec(i, 1))
	}
	return specs
}

func tableOf(p *Pool) map[int]Addr {
	m := map[int]Addr{}
	for at, i := range p.primary.table.slots {
		m[at] = p.primary.table.entries[i].addr
	}
	return m
}

func hashPool(t testing.TB, specs []Spec) *Pool {
	p, _ := newPool(t, nil, Options{Balance: config.Hash, TryEjected: true}, specs)
	return p
}

func TestMaglevBalance(t *testing.T) {
	for _, weights := range [][]int{{1, 1, 1}, {5, 1, 1}, {7, 3, 2, 1}, {100, 1}} {
		total := 0
		for _, w := range weights {
			total += w
		}
		count := map[Addr]int{}
		for _, a := range tableOf(hashPool(t, letters(weights...))) {
			count[a]++
		}
		for i, w := range weights {
			expect := tableSize * w / total
			if d := count[addr(i)] - expect; d > 200 || d < -200 {
				t.Errorf("weights %v: backend %d has %d places, want about %d", weights, i, count[addr(i)], expect)
			}
		}
	}
	// Every backend has places, however small its share.
	specs := equal(300)
	specs[0].Weight = 65535
	count := map[Addr]int{}
	for _, a := range tableOf(hashPool(t, specs)) {
		count[a]++
	}
	if len(count) != 300 {
		t.Errorf("%d of 300 backends have places", len(count))
	}
}

func TestMaglevDisruption(t *testing.T) {
	const n = 20
	before := tableOf(hashPool(t, equal(n)))
	specs := equal(n)
	gone := specs[7].Addr
	after := tableOf(hashPool(t, append(specs[:7:7], specs[8:]...)))
	moved := 0
	for at, a := range before {
		switch {
		case a == gone && after[at] == gone:
			t.Fatal("the removed backend has places")
		case a != gone && after[at] != a:
			moved++
		}
	}
	// 1/20 has to move; what moves without need is to be less than that.
	if moved > tableSize/n {
		t.Errorf("%d of %d places moved without need", moved, tableSize)
	}
}

func TestMaglevIgnoresTheOrderOfTheFile(t *testing.T) {
	specs := letters(3, 2, 1)
	a := tableOf(hashPool(t, specs))
	specs[0], specs[2] = specs[2], specs[0]
	b := tableOf(hashPool(t, specs))
	for at := range a {
		if a[at] != b[at] {
			t.Fatalf("place %d differs", at)
		}
	}
}

func TestHashIsSticky(t *testing.T) {
	p := hashPool(t, letters(1, 1, 1))
	pick := func(key netip.Addr) string {
		b := p.Pick(&State{Key: key}, t0)
		p.Release(b, t0)
		return letter(b)
	}
	first := map[int]string{}
	count := map[string]int{}
	for i := range 3000 {
		first[i] = pick(client(i))
		count[first[i]]++
	}
	for l, n := range count {
		if n < 850 || n > 1150 {
			t.Errorf("%s has %d of 3000 clients", l, n)
		}
	}
	want(t, "v4-mapped", pick(netip.AddrFrom16(client(5).As16())), first[5])
	want(t, "no address", pick(netip.Addr{}), pick(netip.Addr{}))

	// One that is out moves its own clients and nobody else's.
	out := p.Backends()[1]
	p.SetFailing(out, true, t0)
	count = map[string]int{}
	for i := range 3000 {
		got := pick(client(i))
		if first[i] != "b" && got != first[i] {
			t.Fatalf("client %d moved from %s to %s", i, first[i], got)
		}
		if first[i] == "b" {
			count[got]++
		}
	}
	if count["b"] != 0 || count["a"] < 300 || count["c"] < 300 {
		t.Errorf("the clients of b went to %v", count)
	}
	p.SetFailing(out, false, t0)
	for i := range 3000 {
		want(t, "back", pick(client(i)), first[i])
	}
	s := &State{Key: client(1)}
	seen := map[string]bool{}
	for range 3 {
		b := p.Pick(s, t0)
		seen[letter(b)] = true
		p.Release(b, t0)
	}
	if len(seen) != 3 || p.Pick(s, t0) != nil {
		t.Errorf("a session that retries: %v", seen)
	}
}

func TestPlacesOutliveADrain(t *testing.T) {
	specs := letters(1, 1, 1)
	p := hashPool(t, specs)
	table := p.primary.table
	specs[1].State = config.Drain
	p.Apply(Options{Balance: config.Hash}, specs, t0)
	if p.primary.table != table {
		t.Error("a drain rebuilt the table")
	}
	for i := range 100 {
		if b := p.Pick(&State{Key: client(i)}, t0); letter(b) == "b" {
			t.Fatal("a draining backend was picked")
		}
	}
}

// When the backends that have nearly all of the table are out, a pick doesn't
// look through it. Clients of the rest are spread by weight, each stays where it
// is, and one that goes moves its own only.
func TestHashBesideHeavyOnesThatAreOut(t *testing.T) {
	specs := letters(65535, 3, 1, 65535)
	p := hashPool(t, specs)
	heavy := []*Backend{p.Backends()[0], p.Backends()[3]}
	for _, b := range heavy {
		p.SetFailing(b, true, t0)
	}
	looks := 0
	p.primary.walk(client(1), func(b *Backend) bool {
		looks++
		return b.weight < 10
	})
	if looks > 4116 {
		t.Errorf("%d looks at backends for a pick", looks)
	}
	pick := func(i int) string {
		b := p.Pick(&State{Key: client(i)}, t0)
		p.Release(b, t0)
		return letter(b)
	}
	const clients = 2000
	first, count := map[int]string{}, map[string]int{}
	for i := range clients {
		first[i] = pick(i)
		count[first[i]]++
	}
	if count["b"] < clients*70/100 || count["c"] < clients*20/100 || count["b"]+count["c"] != clients {
		t.Errorf("clients over weights 3 and 1: %v", count)
	}
	p.SetFailing(p.Backends()[2], true, t0)
	for i := range clients {
		if got := pick(i); got != "b" {
			t.Fatalf("c is out too: client %d got %s", i, got)
		}
	}
	p.SetFailing(p.Backends()[2], false, t0)
	for i := range clients {
		want(t, "back", pick(i), first[i])
	}
}
