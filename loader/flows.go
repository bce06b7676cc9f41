// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"sync"
	"time"

	"sluice/internal/mono"
)

// quarantine is how long the number of a freed flow stays unused: a verdict
// that looked its socket up before may still be running, and an announcement
// of it may still be on its way.
const quarantine = 100 * time.Millisecond

// flows hands out flow numbers, the one that was freed longest ago first once
// its quarantine is over, so that few pages of the records are ever touched.
type flows struct {
	mu    sync.Mutex
	limit uint32
	fresh uint32      // numbers from here on have never been used
	freed []freedFlow // a ring
	head  int
	n     int
	clock func() int64 // ns, monotonic
}

type freedFlow struct {
	at   int64
	flow uint32
}

func newFlows(limit uint32) *flows { return &flows{limit: limit, clock: mono.New().Now} }

// keep has the numbers of these flows be in use, before any is reserved.
func (f *flows) keep(left []LeftFlow) {
	used := make(map[uint32]bool, len(left))
	for _, l := range left {
		used[l.Flow] = true
		f.fresh = max(f.fresh, l.Flow+1)
	}
	for flow := range f.fresh {
		if !used[flow] {
			f.free(flow)
		}
	}
}

func (f *flows) reserve() (uint32, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n > 0 && f.clock()-f.freed[f.head].at >= int64(quarantine) {
		flow := f.freed[f.head].flow
		f.head = (f.head + 1) % len(f.freed)
		f.n--
		return flow, true
	}
	if f.fresh < f.limit {
		f.fresh++
		return f.fresh - 1, true
	}
	return 0, false
}

func (f *flows) free(flow uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n == len(f.freed) {
		grown := make([]freedFlow, max(64, 2*len(f.freed)))
		for i := range f.n {
			grown[i] = f.freed[(f.head+i)%len(f.freed)]
		}
		f.freed, f.head = grown, 0
	}
	f.freed[(f.head+f.n)%len(f.freed)] = freedFlow{f.clock(), flow}
	f.n++
}
