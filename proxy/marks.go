// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"
	"sync"

	"sluice/loader"
)

// marks are the addresses to which clients connect without ECN. Fronts share some: a
// wildcard of both families has that of one. An error is that there is no room for
// more: sessions of that front's whose client has ECN aren't forwarded.
type marks struct {
	forward *loader.Forward

	mu     sync.Mutex
	fronts map[netip.AddrPort]int
	plain  map[netip.AddrPort]bool // clients come without timestamps
	over   bool                    // forward may be closed
}

// add marks addresses that are as in a front's marked.
func (m *marks) add(addrs []netip.AddrPort) (err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.over {
		return nil
	}
	for _, a := range addrs {
		if m.fronts[a] == 0 {
			if e := m.forward.AddFront(a); e != nil {
				err = e // the count is right without it: removing what isn't there is no error
			}
		}
		m.fronts[a]++
	}
	return err
}

// remove undoes add.
func (m *marks) remove(addrs []netip.AddrPort) (err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.over {
		return nil
	}
	for _, a := range addrs {
		if m.fronts[a]--; m.fronts[a] > 0 {
			continue
		}
		delete(m.fronts, a)
		delete(m.plain, a)
		if e := m.forward.RemoveFront(a); e != nil {
			err = e
		}
	}
	return err
}

// setPlain has clients of marked addresses come without timestamps, or with them again.
func (m *marks) setPlain(addrs []netip.AddrPort, plain bool) (err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.over {
		return nil
	}
	for _, a := range addrs {
		if m.fronts[a] == 0 || m.plain[a] == plain {
			continue
		}
		if e := m.forward.PlainFront(a, plain); e != nil {
			err = e
			continue
		}
		m.plain[a] = plain
	}
	return err
}

// end has forward left alone from now on.
func (m *marks) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.over = true
}

// mark has clients connect to f without ECN if its sessions may be forwarded, which
// takes that neither leg has it or both. To be called before SYNs are taken.
func (f *Front) mark(forwarded bool) {
	if f.addr.Path != "" {
		return
	}
	o := f.e.offload.Load()
	if !forwarded {
		o = nil
	}
	if o == f.marked {
		return
	}
	addrs := f.markedAddrs()
	if f.marked != nil {
		if err := f.marked.marks.remove(addrs); err != nil {
			f.e.log.Warn().Err(err).Msg("connections to this address go on coming without ECN")
		}
	}
	if f.marked = o; o == nil {
		return
	}
	if err := o.marks.add(addrs); err != nil {
		f.e.log.Warn().Err(err).Msg("sessions of clients with ECN are not forwarded")
	}
}

// learnPlain is told of a backend without timestamps: clients come without them from now
// on, and sessions with the pool's other backends go without as well.
func (f *Front) learnPlain(o *offloading, plain bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone {
		return
	}
	if err := o.marks.setPlain(f.markedAddrs(), plain); err != nil {
		f.e.log.Debug().Err(err).Msg("sessions with backends without timestamps are not forwarded")
	}
}

// markedAddrs are the addresses of f as the forward program looks for them.
func (f *Front) markedAddrs() []netip.AddrPort {
	port := localAddr(f.fds[0]).Port()
	if f.addr.Any {
		return []netip.AddrPort{netip.AddrPortFrom(netip.IPv6Unspecified(), port), netip.AddrPortFrom(netip.IPv4Unspecified(), port)}
	}
	return []netip.AddrPort{netip.AddrPortFrom(f.addr.Addr, port)}
}
