// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"sluice/config"
	"sluice/loader"
	"sluice/proxy"
)

// front is a listen address that is bound.
type front struct {
	*proxy.Front
	addr  config.Address
	board *loader.Board // whose picks the program makes for it; nil: none
}

// layout says which front serves which listener after an edit.
//
// Sockets belong to addresses. One that is in both files keeps its sockets. So
// does one that a wildcard of the new file covers: the kernel gives clients to
// the narrower socket as long as there is one, and whoever was in its queue,
// or in a handshake, would be lost with it. It goes when nothing covers it any
// more. One that is being closed and is wanted again comes back.
type layout struct {
	fronts map[config.Address]*front
	of     map[*config.Listener][]*front
	bound  []*front // for this edit
	held   []*front // that were being closed
	left   []*front // that nothing serves any more
}

// bindLayout finds or binds all that c listens on. On an error everything is
// as before.
func (s *Service) bindLayout(c *config.Config) (_ *layout, err error) {
	to := &layout{fronts: map[config.Address]*front{}, of: map[*config.Listener][]*front{}}
	defer func() {
		if err != nil {
			to.discard()
		}
	}()
	s.forgetClosed()
	wanted := map[config.Address]*config.Listener{}
	for _, l := range c.Listeners {
		for _, a := range l.Listen {
			wanted[a] = l
		}
	}
	for a, f := range s.fronts {
		to.place(f, owner(wanted, a))
	}
	for _, f := range s.closing {
		if l := owner(wanted, f.addr); l != nil && to.fronts[f.addr] == nil && f.Hold() {
			to.held = append(to.held, f)
			to.place(f, l)
		}
	}
	if err := s.checkFDs(len(wanted) * s.sockets); err != nil {
		return nil, err
	}
	ours := s.ownAddresses()
	var overlapping []*front
	for _, l := range c.Listeners {
		for _, a := range l.Listen {
			if to.fronts[a] != nil {
				continue
			}
			overlaps := ours.overlap(a)
			b, err := s.engine.Bind(a, l.Backlog, l.Keepalive, overlaps)
			if err != nil {
				return nil, fmt.Errorf("listener %s: %w", l.Name, err)
			}
			f := &front{Front: b, addr: a}
			to.bound = append(to.bound, f)
			to.place(f, l)
			if overlaps {
				overlapping = append(overlapping, f)
			}
		}
	}
	// These take clients away from fronts of ours from now on, so nothing may
	// fail after it.
	for _, f := range overlapping {
		if err := f.Listen(); err != nil {
			return nil, err
		}
	}
	return to, nil
}

// place has f serve l; nil: nothing.
func (to *layout) place(f *front, l *config.Listener) {
	if l == nil {
		to.left = append(to.left, f)
		return
	}
	to.fronts[f.addr] = f
	to.of[l] = append(to.of[l], f)
}

// discard closes what was bound, and lets go on closing what was.
func (to *layout) discard() {
	for _, f := range to.bound {
		f.Close(0)
	}
	for _, f := range to.held {
		f.Release()
	}
}

// heirs are the fronts that have addresses that f is a wildcard for.
func (to *layout) heirs(f *front) (list []*proxy.Front) {
	if !f.addr.Wildcard() {
		return nil
	}
	for a, h := range to.fronts {
		if overlap(a, f.addr) {
			list = append(list, h.Front)
		}
	}
	return list
}

// owner is the listener that serves a: by the address itself, or by a wildcard
// that covers it. nil: none.
func owner(wanted map[config.Address]*config.Listener, a config.Address) *config.Listener {
	if l := wanted[a]; l != nil || a.Path != "" {
		return l
	}
	if l := wanted[config.Address{Addr: netip.IPv6Unspecified(), Any: true, Port: a.Port}]; l != nil {
		return l
	}
	if a.Addr.Is4() {
		return wanted[config.Address{Addr: netip.IPv4Unspecified(), Port: a.Port}]
	}
	return nil
}

// addresses are listed by their port.
type addresses map[uint16][]config.Address

// ownAddresses are those of all sockets that we have.
func (s *Service) ownAddresses() addresses {
	list := addresses{}
	for a := range s.fronts {
		list[a.Port] = append(list[a.Port], a)
	}
	for _, f := range s.closing {
		list[f.addr.Port] = append(list[f.addr.Port], f.addr)
	}
	return list
}

func (list addresses) overlap(a config.Address) bool {
	return slices.ContainsFunc(list[a.Port], func(b config.Address) bool { return overlap(a, b) })
}

// overlap says whether sockets on both addresses would be in each other's way.
func overlap(a, b config.Address) bool {
	if a.Path != "" || b.Path != "" || a.Port != b.Port {
		return false
	}
	if a == b || a.Any || b.Any {
		return true
	}
	return a.Addr.Is4() == b.Addr.Is4() && (a.Wildcard() || b.Wildcard())
}

// closeLeft has the fronts that nothing serves any more serve their accept
// queues and close. It returns at once.
func (s *Service) closeLeft(to *layout) {
	s.engine.SetMaxSessionFDs(s.sessionFDs(len(to.fronts) * s.sockets))
	s.closing = slices.DeleteFunc(s.closing, func(f *front) bool { return slices.Contains(to.held, f) })
	for _, f := range to.left {
		s.closeFront(f)
	}
}

// closeFront has f serve its accept queue and close. It returns at once.
func (s *Service) closeFront(f *front) {
	s.unsetDispatch(f)
	var drain time.Duration
	if s.cfg != nil {
		drain = s.cfg.DrainTimeout
	}
	f.Close(max(drain, queueTime))
	s.closing = append(s.closing, f)
}

// closeTime bounds the wait for sockets that are just being closed.
const closeTime = 100 * time.Millisecond

// forgetClosed forgets fronts that have closed. One that is past coming back is
// waited for: a socket that takes nobody must not be in the group of a new one.
func (s *Service) forgetClosed() {
	limit, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	s.closing = slices.DeleteFunc(s.closing, func(f *front) bool {
		if f.Leaving() {
			return false
		}
		select {
		case <-f.Done():
			return true
		case <-limit.Done():
			return false
		}
	})
}
