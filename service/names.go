// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// LookupFunc finds the addresses of a host name.
type LookupFunc func(ctx context.Context, host string) ([]netip.Addr, error)

const (
	resolveEvery = 30 * time.Second // how old an answer gets
	resolveStart = 2 * time.Second  // how long a start waits for names
	resolveLimit = 10 * time.Second // how long one look-up may take
	resolveAtOne = 16               // look-ups at a time
)

// errNoAddress is for an answer that is none.
var errNoAddress = errors.New("the name has no address")

// systemLookup asks the system's resolver.
func systemLookup(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// names remembers what host names resolve to. Look-ups run on goroutines of
// their own; the answers wait in changed.
type names struct {
	lookup  LookupFunc
	failed  func(name string, known bool, err error)
	ctx     context.Context
	cancel  context.CancelFunc
	changed chan struct{} // an answer differs from the one before
	turns   chan struct{} // one for each look-up under way

	mu    sync.Mutex
	hosts map[string]*host
	wg    sync.WaitGroup
}

type host struct {
	ctx     context.Context // ends once the name isn't wanted any more
	forget  context.CancelFunc
	addrs   []netip.Addr // the last answer
	asked   time.Time
	asking  bool
	waiters []chan struct{}
}

func newNames(lookup LookupFunc, failed func(name string, known bool, err error)) *names {
	if lookup == nil {
		lookup = systemLookup
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &names{
		lookup: lookup, failed: failed, ctx: ctx, cancel: cancel, hosts: map[string]*host{},
		changed: make(chan struct{}, 1), turns: make(chan struct{}, resolveAtOne),
	}
}

// Close ends all look-ups.
func (n *names) Close() {
	n.cancel()
	n.wg.Wait()
}

// get is the last answer for name; none: it hasn't resolved yet.
func (n *names) get(name string) []netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	if h := n.hosts[name]; h != nil {
		return h.addrs
	}
	return nil
}

// waiting says whether name has had no answer of any kind.
func (n *names) waiting(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[name]
	return h != nil && len(h.addrs) == 0 && h.asking
}

// add has these names resolved too, and asks for those whose answer is missing
// or old. It doesn't wait.
func (n *names) add(list []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, name := range list {
		if n.hosts[name] == nil {
			h := &host{}
			h.ctx, h.forget = context.WithCancel(n.ctx)
			n.hosts[name] = h
		}
		n.ask(name)
	}
}

// keep forgets all names but these, with their answers: for when a
// configuration is in force, not while it is being examined.
func (n *names) keep(list []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	wanted := make(map[string]bool, len(list))
	for _, name := range list {
		wanted[name] = true
	}
	for name, h := range n.hosts {
		if !wanted[name] {
			h.forget()
			delete(n.hosts, name)
		}
	}
}

// refresh asks for the names whose answer is old; it says when to come again,
// 0 if there are no names.
func (n *names) refresh() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.hosts) == 0 {
		return 0
	}
	next := resolveEvery
	for name, h := range n.hosts {
		n.ask(name)
		next = min(next, max(resolveEvery-time.Since(h.asked), time.Second))
	}
	return next
}

// ask starts a look-up if the answer is missing or old. Under n.mu.
func (n *names) ask(name string) {
	h := n.hosts[name]
	if h.asking || !h.asked.IsZero() && time.Since(h.asked) < resolveEvery {
		return
	}
	h.asking, h.asked = true, time.Now()
	n.wg.Add(1)
	go func() {
		defer n.wg.Done()
		select {
		case n.turns <- struct{}{}:
			defer func() { <-n.turns }()
		case <-h.ctx.Done():
			n.answer(name, h, nil, h.ctx.Err())
			return
		}
		ctx, cancel := context.WithTimeout(h.ctx, resolveLimit)
		defer cancel()
		addrs, err := n.lookup(ctx, name)
		n.answer(name, h, addrs, err)
	}()
}

func (n *names) answer(name string, h *host, addrs []netip.Addr, err error) {
	if err == nil && len(addrs) == 0 {
		err = errNoAddress
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	h.asking = false
	defer func() { // last: who waited finds all that follows from the answer
		for _, c := range h.waiters {
			close(c)
		}
		h.waiters = nil
	}()
	if n.hosts[name] != h || n.ctx.Err() != nil {
		return
	}
	if err != nil {
		n.failed(name, len(h.addrs) > 0, err)
		return
	}
	addrs = steady(addrs)
	if slices.Equal(addrs, h.addrs) {
		return
	}
	h.addrs = addrs
	select {
	case n.changed <- struct{}{}:
	default:
	}
}

// steady is an answer with each address once and in an order that doesn't
// change, so that a name server that rotates its answers doesn't rotate the pool.
func steady(answer []netip.Addr) []netip.Addr {
	addrs := slices.Clone(answer)
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs)
}

// settle waits until every look-up under way has an answer, for d at most, and
// no longer than ctx.
func (n *names) settle(ctx context.Context, d time.Duration) {
	n.mu.Lock()
	var wait []chan struct{}
	for _, h := range n.hosts {
		if h.asking {
			c := make(chan struct{})
			h.waiters = append(h.waiters, c)
			wait = append(wait, c)
		}
	}
	n.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	for _, c := range wait {
		select {
		case <-c:
		case <-ctx.Done():
			return
		}
	}
}
