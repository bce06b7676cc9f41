// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"net/netip"
	"sync"
	"testing"
	"time"
)

// Tickets taken by everybody while windows close and open: each once, and
// as many as Close says.
func TestBoardCountsTakers(t *testing.T) {
	d := startDispatch(t, pickLife)
	b := newTestBoard(t, d)
	mem := b.mem
	kernel := newBoard(d.Picks, b.number) // stands for the program
	kernel.open = true
	for round := range 200 {
		b.Open(counting(0, 500), time.Time{})
		kernel.live = mem.Live
		var (
			wg   sync.WaitGroup
			mu   sync.Mutex
			seen = map[int]int{}
		)
		for range 4 {
			wg.Go(func() {
				other := *kernel
				for range 200 {
					if i, ok := other.Take(); ok {
						mu.Lock()
						seen[i]++
						mu.Unlock()
					}
				}
			})
		}
		if round%2 == 0 {
			wg.Wait()
		}
		n := b.Close()
		wg.Wait()
		if len(seen) != n {
			t.Fatalf("%d tickets taken, Close says %d", len(seen), n)
		}
		for i, times := range seen {
			if times != 1 || i >= n {
				t.Fatalf("ticket %d of %d taken %d times", i, n, times)
			}
		}
	}
}

func TestBoards(t *testing.T) {
	d := startDispatch(t, pickLife)
	var all []*Board
	for i := range d.boards.entries {
		b, err := d.NewBoard()
		if err != nil || b.number != i {
			t.Fatalf("board %d, %v instead of %d", b.number, err, i)
		}
		all = append(all, b)
	}
	if _, err := d.NewBoard(); err == nil {
		t.Error("a board too many")
	}
	at := netip.AddrPortFrom(lo4, 1)
	all[7].Free()
	all[7].Free()
	if err := d.SetListener(at, false, all[7]); err == nil {
		t.Error("a listener was set for a board that was given back")
	}
	b, err := d.NewBoard()
	if err != nil || b.number != 7 {
		t.Errorf("board %d, %v instead of 7", b.number, err)
	}
	all[7].Free() // not its owner any more
	if err := d.SetListener(at, false, b); err != nil {
		t.Errorf("a board was taken away by who had it before: %v", err)
	}
	if err := d.SetListener(at, false, all[7]); err == nil {
		t.Error("a listener was set through who had the board before")
	}
}
