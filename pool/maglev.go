// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"encoding/binary"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Table sizes, both prime. The larger one is for pools of so many backends
// that the smaller would leave each of them too few places.
const (
	tableSize     = 65537
	bigTableSize  = 1048573
	bigTableFrom  = 4096 // backends
	hashSeed      = 0x736c756963650001
	hashSeedStep  = 0x736c756963650002
	fnvOffset     = 14695981039346656037
	fnvPrime      = 1099511628211
	emptySlot     = -1
	goldenRatio64 = 0x9e3779b97f4a7c15
)

// tableEntry is what a table depends on.
type tableEntry struct {
	addr   Addr
	name   string
	weight int64
}

// maglev is a consistent hash table after Eisenbud and others (NSDI 2016). It
// depends on the set of addresses and weights only, neither on their order in
// the file nor on the process, so all instances with one file agree.
type maglev struct {
	entries []tableEntry // sorted by name
	slots   []int32      // index into entries
}

// tables gives the tables for the specs, nil where there is none to have, and
// the old ones where addresses and weights are the same. A backend that is down
// or drains keeps its places, so that it moves no client but its own.
func (p *Pool) tables(specs []Spec, oldPrimary, oldBackup *maglev) (primary, backup *maglev) {
	var entries [2][]tableEntry
	for _, s := range specs {
		i := 0
		if s.Backup {
			i = 1
		}
		entries[i] = append(entries[i], tableEntry{s.Addr, s.Addr.String(), int64(max(s.Weight, 1))})
	}
	return p.refresh(oldPrimary, entries[0]), p.refresh(oldBackup, entries[1])
}

func (p *Pool) refresh(old *maglev, entries []tableEntry) *maglev {
	slices.SortFunc(entries, func(a, b tableEntry) int { return strings.Compare(a.name, b.name) })
	switch {
	case len(entries) == 0:
		return nil
	case old != nil && slices.Equal(old.entries, entries):
		return old
	}
	return p.newTable(entries)
}

// newMaglev fills the table: each backend has its own permutation of the
// places and takes the first free one at each of its turns. The heaviest has a
// turn each round, the others in proportion to their weight.
func newMaglev(entries []tableEntry) *maglev {
	size := uint64(tableSize)
	if len(entries) > bigTableFrom {
		size = bigTableSize
	}
	var heaviest int64
	for _, e := range entries {
		heaviest = max(heaviest, e.weight)
	}
	place := make([]uint64, len(entries))
	skip := make([]uint64, len(entries))
	turns := make([]int64, len(entries))
	for i, e := range entries {
		place[i] = hashString(e.name, hashSeed) % size
		skip[i] = hashString(e.name, hashSeedStep)%(size-1) + 1
	}
	slots := make([]int32, size)
	for i := range slots {
		slots[i] = emptySlot
	}
	rounds := newRounds(len(entries), int(size))
	for filled := uint64(0); filled < size; {
		i := rounds.next()
		at := place[i]
		for slots[at] != emptySlot {
			if at += skip[i]; at >= size {
				at -= size
			}
		}
		slots[at] = int32(i)
		filled++
		if place[i] = at + skip[i]; place[i] >= size {
			place[i] -= size
		}
		turns[i]++
		rounds.again(i, int((turns[i]*heaviest+entries[i].weight-1)/entries[i].weight))
	}
	return &maglev{entries: entries, slots: slots}
}

// rounds is a queue of turns by round: a list of backends for each round, in
// the order in which they were put there.
type rounds struct {
	now        int
	head, tail []int32 // by round
	link       []int32 // by backend
}

func newRounds(n, size int) *rounds {
	r := &rounds{head: make([]int32, size+1), tail: make([]int32, size+1), link: make([]int32, n)}
	for i := range r.head {
		r.head[i] = emptySlot
	}
	for i := range n {
		r.again(i, 0)
	}
	return r
}

// again gives backend i a turn in the given round. There are never more rounds
// than places, as the heaviest takes a place in each.
func (r *rounds) again(i, round int) {
	if round >= len(r.head) {
		return
	}
	r.link[i] = emptySlot
	if r.head[round] == emptySlot {
		r.head[round] = int32(i)
	} else {
		r.link[r.tail[round]] = int32(i)
	}
	r.tail[round] = int32(i)
}

func (r *rounds) next() int {
	for r.head[r.now] == emptySlot {
		r.now++
	}
	i := r.head[r.now]
	r.head[r.now] = r.link[i]
	return int(i)
}

func (l *list) setTable(t *maglev) {
	l.table, l.member = t, nil
	if t == nil {
		return
	}
	byAddr := make(map[Addr]*Backend, len(l.all))
	for _, b := range l.all {
		byAddr[b.Addr] = b
	}
	for _, e := range t.entries {
		l.member = append(l.member, byAddr[e.addr])
	}
}

// hashed is the key's backend, or the next eligible one in table order. Those
// in slow start that don't take this client yet come after all others.
func (l *list) hashed(key netip.Addr, sec int64, now time.Time) *Backend {
	if l.table == nil {
		return nil
	}
	if len(l.slow) > 0 {
		turn := early(key)
		b := l.walk(key, func(b *Backend) bool {
			return b.eligible(sec) && (!b.slow.on || turn < b.part(now))
		})
		if b != nil {
			return b
		}
	}
	return l.walk(key, func(b *Backend) bool { return b.eligible(sec) })
}

// walkMost is how far a client is led through the table. Among backends of a
// few weights one that fits comes much sooner.
const walkMost = 4096

// walk is the first backend that fits, from the key's place in the table on.
// Where those that have most of the places don't fit, it isn't looked for
// through all of them under the pool's lock: the key chooses among the rest.
func (l *list) walk(key netip.Addr, fits func(*Backend) bool) *Backend {
	slots := l.table.slots
	at := int(hashAddr(key) % uint64(len(slots)))
	if b := l.member[slots[at]]; fits(b) {
		return b
	}
	// Look at the backends first: there may be nobody to find.
	if !slices.ContainsFunc(l.all, fits) {
		return nil
	}
	for range walkMost {
		if at++; at == len(slots) {
			at = 0
		}
		if b := l.member[slots[at]]; fits(b) {
			return b
		}
	}
	return l.highest(key, fits)
}

// highest is the backend that fits with the highest score for the key, scores
// being drawn by weight: rendezvous hashing. Like the table it depends on
// addresses and weights alone, and one that comes or goes moves its own clients
// only.
func (l *list) highest(key netip.Addr, fits func(*Backend) bool) *Backend {
	var best *Backend
	var most float64
	h := hashAddr(key)
	for i, b := range l.member {
		if !fits(b) {
			continue
		}
		e := &l.table.entries[i]
		drawn := (float64(mix(h^hashString(e.name, hashSeed))>>11) + 0.5) / (1 << 53) // in (0, 1)
		if score := -float64(e.weight) / math.Log(drawn); best == nil || score > most {
			best, most = b, score
		}
	}
	return best
}

// hashAddr hashes an address; v4-mapped is IPv4, a zone doesn't count.
func hashAddr(a netip.Addr) uint64 {
	var b [16]byte // zero for a unix socket
	if a.IsValid() {
		b = a.As16() // the same for IPv4 and v4-mapped
	}
	return mix(mix(binary.BigEndian.Uint64(b[:8])^hashSeed) ^ binary.BigEndian.Uint64(b[8:]))
}

func hashString(s string, seed uint64) uint64 {
	h := uint64(fnvOffset) ^ seed
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * fnvPrime
	}
	return mix(h)
}

// mix is the finaliser of SplitMix64.
func mix(x uint64) uint64 {
	x += goldenRatio64
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
