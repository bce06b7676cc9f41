// SPDX-License-Identifier: Apache-2.0

package session

import (
	"net/netip"
	"sync"
)

// Limits enforces max_conns and max_conns_per_ip of one listener, exactly,
// over all carriers.
type Limits struct {
	mu    sync.Mutex
	total int
	left  uint64 // sessions that have gone
	perIP map[netip.Addr]int
}

// NewLimits returns an empty count.
func NewLimits() *Limits { return &Limits{perIP: make(map[netip.Addr]int)} }

// enter counts a session in, unless that would exceed a limit (0: none). left is
// how many sessions had gone by then. Sessions over unix sockets have no address
// and are under the first limit only.
func (l *Limits) enter(ip netip.Addr, max, maxPerIP int) (ok bool, left uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if max > 0 && l.total >= max {
		return false, l.left
	}
	if ip.IsValid() {
		if maxPerIP > 0 && l.perIP[ip] >= maxPerIP {
			return false, l.left
		}
		l.perIP[ip]++
	}
	l.total++
	return true, l.left
}

func (l *Limits) leave(ip netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	l.left++
	if ip.IsValid() {
		if l.perIP[ip]--; l.perIP[ip] <= 0 {
			delete(l.perIP, ip)
		}
	}
}
