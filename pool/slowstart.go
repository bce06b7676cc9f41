// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"net/netip"
	"time"
)

const (
	// slowFrom is the part of its share with which a slow start begins.
	slowFrom = 0.1
	// slowSaved is how many turns a backend in slow start can save up while the
	// rule prefers others.
	slowSaved = 8
)

// slowStart is the time in which a backend that has come (back) climbs to its
// share, in a straight line. Its share is its weight's part of the weights of
// all that are eligible in its list, and is kept by counting picks, not by
// changing weights: so it is as exact for a weight of 1 as for one of 65535,
// and who isn't in slow start goes on from its place in nginx's order. Each
// pick in the list earns the backend the part that is its share at that
// moment; while it has earned less than a whole pick the rule, whichever it
// is, leaves it out, as it leaves out those that are not eligible.
//
// With balance: hash it is a part of its own clients that go to it, the same
// ones until the part has grown: each moves once. The others go to the next
// backend in the table's order.
type slowStart struct {
	on     bool
	since  time.Time
	earned float64 // picks
}

// live says that the backend takes sessions but for what passes by itself.
func (b *Backend) live() bool { return b.up && !b.removed && !b.failing && !b.struck() }

// arrivals finds who of l has come since it last looked and begins their slow
// start, unless nobody was live before: at the start of a pool, or for its
// only live backend. It is to be called after whatever may change live.
func (l *list) arrivals(now time.Time) {
	others := false
	for _, b := range l.all {
		others = others || b.wasLive && b.live()
	}
	l.slow = l.slow[:0]
	for _, b := range l.all {
		live := b.live()
		switch {
		case !live || b.spec.SlowStart <= 0:
			b.slow = slowStart{}
		case others && !b.wasLive:
			b.slow = slowStart{on: true, since: now}
			// Back from failures it would also climb by picks.
			b.effectiveWeight = b.weight
		}
		b.wasLive = live
		if b.slow.on {
			l.slow = append(l.slow, b)
		}
	}
}

// part is what b is to have of its share, 1 when the slow start is over.
func (b *Backend) part(now time.Time) float64 {
	elapsed := max(0, now.Sub(b.slow.since))
	return min(1, slowFrom+(1-slowFrom)*float64(elapsed)/float64(b.spec.SlowStart))
}

// endSlow ends the slow starts that are over.
func (l *list) endSlow(now time.Time) {
	still := l.slow[:0]
	for _, b := range l.slow {
		if b.part(now) < 1 {
			still = append(still, b)
		} else {
			b.slow = slowStart{}
		}
	}
	clear(l.slow[len(still):])
	l.slow = still
}

// earn counts one pick toward those of l that are in slow start. If nobody
// else is eligible it is one of them, which is returned: they share by what
// they have now.
func (l *list) earn(sec int64, now time.Time) *Backend {
	var rest, slow, whole float64
	for _, b := range l.all {
		switch w := float64(b.weight); {
		case !b.eligible(sec):
		case b.slow.on:
			slow += w * b.part(now)
			whole += w
		default:
			rest += w
		}
	}
	whole += rest
	if rest == 0 {
		whole = slow
	}
	var most *Backend
	for _, b := range l.slow {
		if !b.eligible(sec) {
			continue
		}
		b.slow.earned = min(slowSaved, b.slow.earned+float64(b.weight)*b.part(now)/whole)
		if most == nil || b.slow.earned > most.slow.earned {
			most = b
		}
	}
	if rest > 0 {
		return nil
	}
	return most
}

// ready is eligible, and due if in slow start: what a rule chooses from.
func (b *Backend) ready(sec int64) bool {
	return b.eligible(sec) && (!b.slow.on || b.slow.earned >= 1)
}

// early is a client's place in [0, 1) in the order in which those of a backend
// in slow start go to it, with balance: hash. It doesn't follow from the
// client's place in the table.
func early(key netip.Addr) float64 {
	return float64(mix(hashAddr(key))>>11) / (1 << 53)
}
