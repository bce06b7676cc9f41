// SPDX-License-Identifier: Apache-2.0

package proxy

// timerHeap is a binary heap of sessions by the time to look at them next. A
// session's deadline may be later than its key: activity moves the deadline
// only, and the heap catches up when the key comes due. So a busy session
// costs the heap nothing.
type timerHeap []timerEntry

type timerEntry struct {
	key int64 // monotonic, ns
	s   *pair
}

// set sees to it that s is looked at no later than at when.
func (h *timerHeap) set(s *pair, when int64) {
	s.deadline = when
	if s.timer == 0 {
		*h = append(*h, timerEntry{when, s})
		s.timer = int32(len(*h))
		h.up(len(*h) - 1)
		return
	}
	i := int(s.timer) - 1
	if when < (*h)[i].key {
		(*h)[i].key = when
		h.up(i)
	}
}

func (h *timerHeap) moveTo(s *pair, key int64) {
	i := int(s.timer) - 1
	(*h)[i].key = key
	h.down(i)
}

func (h *timerHeap) remove(s *pair) {
	if s.timer == 0 {
		return
	}
	i := int(s.timer) - 1
	last := len(*h) - 1
	h.swap(i, last)
	(*h)[last] = timerEntry{}
	*h = (*h)[:last]
	s.timer = 0
	if i < last {
		h.down(i)
		h.up(i)
	}
}

func (h *timerHeap) swap(i, j int) {
	a := *h
	a[i], a[j] = a[j], a[i]
	a[i].s.timer = int32(i + 1)
	a[j].s.timer = int32(j + 1)
}

func (h *timerHeap) up(i int) {
	for i > 0 {
		p := (i - 1) / 2
		if (*h)[p].key <= (*h)[i].key {
			return
		}
		h.swap(p, i)
		i = p
	}
}

func (h *timerHeap) down(i int) {
	for {
		c := 2*i + 1
		if c >= len(*h) {
			return
		}
		if c+1 < len(*h) && (*h)[c+1].key < (*h)[c].key {
			c++
		}
		if (*h)[i].key <= (*h)[c].key {
			return
		}
		h.swap(i, c)
		i = c
	}
}
