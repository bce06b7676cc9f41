// SPDX-License-Identifier: Apache-2.0

package srcports

import (
	"math/bits"
	"time"
)

// uses is what is in use toward one backend. Ports are known by their places in the
// order in which they were claimed.
type uses struct {
	last  int      // place that was last handed out; -1: none
	taken []uint64 // a bit a place
	busy  []uint64 // taken, or at rest
	count int      // of those
	rest  []resting
}

type resting struct {
	place int
	until time.Time
}

// take takes the first free place behind the last one, of total; -1: none is free.
func (u *uses) take(total int) int {
	u.grow(total)
	if u.count >= total {
		return -1
	}
	from := u.last + 1
	place := u.free(from, total)
	if place < 0 {
		place = u.free(0, min(from, total))
	}
	if place >= 0 {
		u.last = place
		u.mark(place)
	}
	return place
}

// occupy takes this very place; false: it is in use.
func (u *uses) occupy(place int) bool {
	u.grow(place + 1)
	if u.busy[place/64]&(1<<(place%64)) != 0 {
		return false
	}
	u.mark(place)
	return true
}

func (u *uses) grow(total int) {
	for words := (total + 63) / 64; len(u.busy) < words; {
		u.busy, u.taken = append(u.busy, 0), append(u.taken, 0)
	}
}

func (u *uses) mark(place int) {
	u.taken[place/64] |= 1 << (place % 64)
	u.busy[place/64] |= 1 << (place % 64)
	u.count++
}

// free is the first free place from one on, below end; -1: there is none.
func (u *uses) free(from, end int) int {
	for at := from; at < end; at = (at/64 + 1) * 64 {
		if open := ^u.busy[at/64] >> (at % 64); open != 0 {
			if place := at + bits.TrailingZeros64(open); place < end {
				return place
			}
			return -1
		}
	}
	return -1
}

// give gives a place back; false: it wasn't taken.
func (u *uses) give(place int, rest time.Duration, now time.Time) bool {
	bit := uint64(1) << (place % 64)
	if place/64 >= len(u.taken) || u.taken[place/64]&bit == 0 {
		return false
	}
	u.taken[place/64] &^= bit
	if rest > 0 {
		u.rest = append(u.rest, resting{place, now.Add(rest)})
		return true
	}
	u.busy[place/64] &^= bit
	u.count--
	return true
}

// wake ends the rest of those whose time is over. Rests are of few lengths, so that
// the list is nearly in order: one that isn't waits for those in front.
func (u *uses) wake(now time.Time) {
	n := 0
	for ; n < len(u.rest) && !u.rest[n].until.After(now); n++ {
		place := u.rest[n].place
		u.busy[place/64] &^= 1 << (place % 64)
		u.count--
	}
	if u.rest = u.rest[n:]; len(u.rest) == 0 {
		u.rest = nil
	}
}
