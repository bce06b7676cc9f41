// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
)

// Prefixes of the names that a stub, and the array by which it leads to the program, are
// pinned under; the stub's program id follows, so that two processes' are there at once
// while one takes over from the other.
const (
	stubPin  = "stub_"
	entryPin = "entry_"
)

// pinStub has the stub lead to the program for as long as both are pinned: before its
// first filter, so that there is never one whose stub isn't pinned.
func (h *clsact) pinStub() error {
	if h.pin == nil {
		return nil
	}
	id := strconv.Itoa(int(h.id))
	return errors.Join(h.pin.put(entryPin+id, h.objs.ForwardEntry), h.pin.put(stubPin+id, h.objs.ForwardStub))
}

func (h *clsact) unpinStub() error {
	if h.pin == nil || h.id == 0 {
		return nil
	}
	id := strconv.Itoa(int(h.id))
	return errors.Join(h.pin.remove(stubPin+id), h.pin.remove(entryPin+id))
}

// pins is about links and their programs, of which it has none.
func (h *clsact) pins(string) bool { return false }

// leave closes what is pinned without taking it off.
func (h *clsact) leave() error {
	clear(h.filters)
	return errors.Join(h.objs.Close(), h.claim.close())
}

// sweepFilters removes the filters whose stubs are pinned at p, and unpins those, but
// for the ones to keep (nil: none).
func (p *Pin) sweepFilters(keep func(ebpf.ProgramID) bool) error {
	names, err := p.names(stubPin)
	if err != nil || len(names) == 0 {
		return err
	}
	gone := map[ebpf.ProgramID]bool{}
	for _, name := range names {
		id, err := strconv.ParseUint(strings.TrimPrefix(name, stubPin), 10, 32)
		if err == nil && (keep == nil || !keep(ebpf.ProgramID(id))) {
			gone[ebpf.ProgramID(id)] = true
		}
	}
	if err := removeFiltersOf(gone); err != nil {
		return err
	}
	var errs []error
	for id := range gone {
		text := strconv.Itoa(int(id))
		errs = append(errs, p.remove(stubPin+text), p.remove(entryPin+text))
	}
	return errors.Join(errs...)
}

// removeFiltersOf removes every filter of these stubs in the calling thread's network
// namespace.
func removeFiltersOf(stubs map[ebpf.ProgramID]bool) error {
	if len(stubs) == 0 {
		return nil
	}
	qdiscs, err := clsactQdiscs()
	if err != nil {
		return err
	}
	for _, q := range qdiscs {
		for _, at := range []place{egress, ingress} {
			list, err := filtersOf(q.index, at.clsact())
			if err != nil {
				return err
			}
			for _, e := range list {
				if !stubs[e.id] {
					continue
				}
				if err := removeFilter(e.filter(q.index, at)); err != nil {
					return fmt.Errorf("what was pinned: %w", err)
				}
			}
		}
	}
	return nil
}

// filter is the entry as netlink removes it.
func (e tcEntry) filter(index int, at place) *netlink.BpfFilter {
	return &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: index,
			Parent:    at.clsact(),
			Handle:    e.handle,
			Protocol:  e.protocol,
			Priority:  e.priority,
		},
		Name: e.name,
	}
}
