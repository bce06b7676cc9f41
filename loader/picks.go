// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/cilium/ebpf"

	"sluice/bpf"
	"sluice/internal/mono"
)

// Picks are the windows of coming picks and the listen addresses that lead to
// them, in maps shared with the programs that hand them out (bpf/picks.h). All
// methods may be called at once from several goroutines.
type Picks struct {
	listeners *ebpf.Map
	boards    *shared[bpf.DispatchBoard]
	windows   *shared[bpf.DispatchPicks]
	clock     mono.Clock

	mu   sync.Mutex
	used []bool // by a board's number
}

// newPicks maps what the programs share. The maps stay their owner's, who calls
// close before they go.
func newPicks(listeners, boards, windows *ebpf.Map, c mono.Clock) (_ *Picks, err error) {
	p := &Picks{listeners: listeners, clock: c}
	defer func() {
		if err != nil {
			_ = p.close()
		}
	}()
	if p.boards, err = mapShared[bpf.DispatchBoard](boards); err != nil {
		return nil, err
	}
	if p.windows, err = mapShared[bpf.DispatchPicks](windows); err != nil {
		return nil, err
	}
	p.used = make([]bool, p.boards.entries)
	return p, nil
}

// close unmaps; safe on nil and when repeated. Boards must not be used any more.
func (p *Picks) close() error {
	if p == nil {
		return nil
	}
	return errors.Join(p.boards.close(), p.windows.close())
}

// NewBoard gives a pool a board of its own. It is closed: nothing is handed out
// until Open. An error says that all are taken; the pool then works without one.
// Free gives it back.
func (p *Picks) NewBoard() (*Board, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for n, used := range p.used {
		if !used {
			p.used[n] = true
			return newBoard(p, uint32(n)), nil
		}
	}
	return nil, fmt.Errorf("dispatch: all %d boards are taken", len(p.used))
}

// SetListener has connections to addr take the picks of a board, replacing what
// was set for addr. any: addr is a wildcard for both families (its address
// doesn't matter, its port does). Call it after listen().
func (p *Picks) SetListener(addr netip.AddrPort, any bool, b *Board) error {
	p.mu.Lock()
	ok := b != nil && b.owner == p && p.used[b.number] && !b.freed
	p.mu.Unlock()
	if !ok {
		return fmt.Errorf("dispatch: listener %s: its pool's board has been given back", addr)
	}
	for i, key := range listenerKeys(addr, any) {
		if err := p.listeners.Put(key, b.number); err != nil {
			if i > 0 {
				_ = p.DeleteListener(addr, any)
			}
			return fmt.Errorf("dispatch: listener %s: %w", addr, err)
		}
	}
	return nil
}

// DeleteListener ends what SetListener began; it is no error if there is
// nothing to delete. Call it before the socket is closed.
func (p *Picks) DeleteListener(addr netip.AddrPort, any bool) error {
	var errs []error
	for _, key := range listenerKeys(addr, any) {
		if err := p.listeners.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, fmt.Errorf("dispatch: listener %s: %w", addr, err))
		}
	}
	return errors.Join(errs...)
}

func listenerKeys(addr netip.AddrPort, any bool) []bpf.DispatchListenerKey {
	if !any {
		return []bpf.DispatchListenerKey{{Addr: words(addr.Addr()), Port: addr.Port()}}
	}
	return []bpf.DispatchListenerKey{
		{Addr: words(netip.IPv6Unspecified()), Port: addr.Port()},
		{Addr: words(netip.IPv4Unspecified()), Port: addr.Port()}, // ::ffff:0.0.0.0
	}
}
