// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"sync/atomic"

	"sluice/bpf"
	"sluice/pool"
)

// closedWindow is a counter beyond any end, far enough from both it and the
// top of the range that no number of adders gets there.
const closedWindow = uint64(1) << 62

// MaxPicks is how many picks a board's window holds.
const MaxPicks = len(bpf.DispatchPicks{}.Id[0])

// board is pool.Board over the memory shared with the dispatch program. Its
// callers hold the pool's lock; the program is the only other party.
type board struct {
	mem   *bpf.DispatchBoard
	picks *bpf.DispatchPicks
	live  uint32 // the window last opened
	open  bool
}

var _ pool.Board = (*board)(nil)

// newBoard makes a board on a slot's memory, both windows closed.
func newBoard(mem *bpf.DispatchBoard, picks *bpf.DispatchPicks) *board {
	for i := range mem.Window {
		atomic.StoreUint64(&mem.Window[i].Counter, closedWindow)
		atomic.StoreUint64(&mem.Window[i].End, 0)
	}
	return &board{mem: mem, picks: picks, live: atomic.LoadUint32(&mem.Live) & 1}
}

// Open fills the window that isn't live and makes it live. A run of the
// program that still looks at the other one finds it closed, or, if it has
// its ticket already, its picks still there.
func (b *board) Open(picks []uint32) {
	if b.open {
		b.Close()
	}
	next := b.live ^ 1
	n := min(len(picks), MaxPicks)
	for i, id := range picks[:n] {
		atomic.StoreUint32(&b.picks.Id[next][i], id)
	}
	w := &b.mem.Window[next]
	atomic.StoreUint64(&w.End, uint64(n))
	atomic.StoreUint64(&w.Counter, 0)
	atomic.StoreUint32(&b.mem.Live, next)
	b.live, b.open = next, true
}

// Close ends the window by one exchange: tickets up to the old value were
// taken, later ones get nothing. 0 if none is open.
func (b *board) Close() int {
	if !b.open {
		return 0
	}
	b.open = false
	w := &b.mem.Window[b.live]
	old := atomic.SwapUint64(&w.Counter, closedWindow)
	return int(min(old, atomic.LoadUint64(&w.End)))
}

// Take takes the next ticket as the program does.
func (b *board) Take() (int, bool) {
	if !b.open {
		return 0, false
	}
	w := &b.mem.Window[b.live]
	t := atomic.AddUint64(&w.Counter, 1) - 1
	if t >= atomic.LoadUint64(&w.End) {
		return 0, false
	}
	return int(t), true
}
