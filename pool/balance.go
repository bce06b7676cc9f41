// SPDX-License-Identifier: Apache-2.0

package pool

import "sort"

// roundRobin is nginx's smooth weighted round robin
// (ngx_stream_upstream_get_peer).
func roundRobin(l *list, sec int64) *Backend {
	var best *Backend
	var total int64
	for _, b := range l.all {
		if !b.ready(sec) {
			continue
		}
		total += b.climb()
		if best == nil || b.currentWeight > best.currentWeight {
			best = b
		}
	}
	if best != nil {
		best.currentWeight -= total
	}
	return best
}

// leastConn is nginx's: fewest sessions by weight, ties by smooth round robin
// among the tied; the weights move only when there is a tie.
func leastConn(l *list, sec int64) *Backend {
	var best *Backend
	var first int
	var many bool
	for i, b := range l.all {
		if !b.ready(sec) {
			continue
		}
		if best == nil {
			best, first = b, i
			continue
		}
		switch mine, its := b.conns*best.weight, best.conns*b.weight; {
		case mine < its:
			best, first, many = b, i, false
		case mine == its:
			many = true
		}
	}
	if !many {
		return best
	}
	var total int64
	for _, b := range l.all[first:] {
		if !b.ready(sec) || b.conns*best.weight != best.conns*b.weight {
			continue
		}
		total += b.climb()
		if b.currentWeight > best.currentWeight {
			best = b
		}
	}
	best.currentWeight -= total
	return best
}

// weightRange is one backend's part of [0, total).
type weightRange struct {
	from int64
	b    *Backend
}

// randomDraws is nginx's limit, after which round robin decides.
const randomDraws = 20

// randomTwo draws two different backends that are ready by weight and takes the one
// with fewer sessions by weight, as nginx's `random two`.
func (p *Pool) randomTwo(l *list, sec int64) *Backend {
	if len(l.ranges) < 2 {
		return roundRobin(l, sec)
	}
	var first *Backend
	for range randomDraws {
		b := l.draw(p.random(l.total))
		if b == first || !b.ready(sec) {
			continue
		}
		if first == nil {
			first = b
			continue
		}
		if b.conns*first.weight > first.conns*b.weight {
			return first
		}
		return b
	}
	return roundRobin(l, sec)
}

func (l *list) draw(x int64) *Backend {
	i := sort.Search(len(l.ranges), func(i int) bool { return l.ranges[i].from > x })
	return l.ranges[i-1].b
}

func (l *list) setRanges() {
	l.ranges, l.total = nil, 0
	for _, b := range l.all {
		if b.up {
			l.ranges = append(l.ranges, weightRange{l.total, b})
			l.total += b.weight
		}
	}
}
