// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"math"
	"sync/atomic"
	"time"

	"sluice/bpf"
	"sluice/internal/mono"
	"sluice/pool"
)

// closedWindow is a counter beyond any end, far enough from both it and the
// top of the range that no number of adders gets there.
const closedWindow = uint64(1) << 62

// MaxPicks is how many picks a board's window holds.
const MaxPicks = len(bpf.DispatchPicks{}.Id[0])

// Board is a pool's place in the memory shared with the programs: pool.Board,
// whose callers hold the pool's lock; the programs are the only other party.
type Board struct {
	owner  *Picks
	number uint32
	freed  bool // under the owner's lock

	mem   *bpf.DispatchBoard
	picks *bpf.DispatchPicks
	clock mono.Clock
	live  uint32 // the window last opened
	open  bool
}

var _ pool.Board = (*Board)(nil)

// newBoard makes the board of this number, both windows closed.
func newBoard(p *Picks, number uint32) *Board {
	b := &Board{owner: p, number: number, mem: p.boards.at(number), picks: p.windows.at(number), clock: p.clock}
	b.shut()
	b.live = atomic.LoadUint32(&b.mem.Live) & 1
	return b
}

// shut closes both windows, open or not.
func (b *Board) shut() {
	for i := range b.mem.Window {
		atomic.StoreUint64(&b.mem.Window[i].Counter, closedWindow)
		atomic.StoreUint64(&b.mem.Window[i].End, 0)
	}
}

// Free closes the windows and gives the board back; again it does nothing. No
// listener may still lead to it, and it must not be used any more.
func (b *Board) Free() {
	b.owner.mu.Lock()
	defer b.owner.mu.Unlock()
	if b.freed {
		return
	}
	b.freed = true
	b.shut()
	b.owner.used[b.number] = false
}

// Open fills the window that isn't live and makes it live. A run of the
// program that still looks at the other one finds it closed, or, if it has
// its ticket already, its picks still there.
func (b *Board) Open(picks []uint32, until time.Time) {
	if b.open {
		b.Close()
	}
	next := b.live ^ 1
	n := min(len(picks), MaxPicks)
	for i, id := range picks[:n] {
		atomic.StoreUint32(&b.picks.Id[next][i], id)
	}
	w := &b.mem.Window[next]
	atomic.StoreUint64(&w.Until, b.bound(until))
	atomic.StoreUint64(&w.End, uint64(n))
	atomic.StoreUint64(&w.Counter, 0)
	atomic.StoreUint32(&b.mem.Live, next)
	b.live, b.open = next, true
}

// Close ends the window by one exchange: tickets up to the old value were
// taken, later ones get nothing. 0 if none is open.
func (b *Board) Close() int {
	if !b.open {
		return 0
	}
	b.open = false
	w := &b.mem.Window[b.live]
	old := atomic.SwapUint64(&w.Counter, closedWindow)
	return int(min(old, atomic.LoadUint64(&w.End)))
}

// bound is until on the program's clock.
func (b *Board) bound(until time.Time) uint64 {
	if until.IsZero() {
		return math.MaxUint64
	}
	return uint64(max(0, b.clock.Of(until)))
}

// Take takes the next ticket as the program does.
func (b *Board) Take() (int, bool) {
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
