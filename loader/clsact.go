// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/bpf"
)

// Names of our filters. The mark says that the qdisc is an instance's own, to
// be removed with the last filter in it; who finds it there writes it too.
const (
	stubName   = "sluice_forward"
	pinnedStub = "_pinned" // it runs on without a process: nobody but who has the Pin removes it
	ownQdisc   = "_own_qdisc"
)

// clsact attaches by filters, which outlive their process: each holds the stub.
type clsact struct {
	place   place
	objs    bpf.ForwardStubObjects
	id      ebpf.ProgramID // of the stub
	claim   *claim
	tcx     bool // others' programs may be attached by tcx, which runs first
	filters map[int]*netlink.BpfFilter
	own     map[int]bool   // devices whose qdisc is an instance's, though no filter says so now
	ingress ebpf.ProgramID // the stub on ingress, of those on egress
	pin     *Pin           // nil: the stub leads nowhere once the process has ended
}

// newClsact loads the stub and has it lead to p, which is the caller's and of
// section "tc". What leads there ends with the array's descriptor, so the
// process must keep this until it is closed. own is what sweepStubs gave.
func newClsact(p *ebpf.Program, at place, tcx bool, own map[int]bool, pin *Pin) (_ *clsact, err error) {
	h := &clsact{place: at, tcx: tcx, filters: map[int]*netlink.BpfFilter{}, own: own, pin: pin}
	defer func() {
		if err != nil {
			_ = h.close()
		}
	}()
	if err := bpf.LoadForwardStubObjects(&h.objs, nil); err != nil {
		return nil, err
	}
	if h.id, err = programID(h.objs.ForwardStub); err != nil {
		return nil, err
	}
	if h.claim, err = claimProgram(h.id); err != nil {
		return nil, err
	}
	if err := h.objs.ForwardEntry.Put(uint32(0), p); err != nil {
		return nil, fmt.Errorf("leading the stub to the program: %w", err)
	}
	if err := h.pinStub(); err != nil {
		return nil, err
	}
	return h, nil
}

func (h *clsact) attach(index int) (err error) {
	if f := h.filters[index]; f != nil { // which somebody removed
		h.own[index] = strings.HasSuffix(f.Name, ownQdisc)
		if err := h.detach(index); err != nil {
			return err
		}
	}
	// Another instance may remove the qdisc as it leaves, or take the place.
	for range 3 {
		var f *netlink.BpfFilter
		if f, err = h.prepare(index); err != nil {
			return err
		}
		if err = netlink.FilterAdd(f); err == nil {
			h.filters[index] = f
			delete(h.own, index)
			return nil
		}
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENOENT) {
			break
		}
	}
	return fmt.Errorf("a filter of tc: %w", err)
}

// prepare sees to the qdisc and finds the filter's place. The newest bpf filter
// of a priority runs first, so 1 is the place unless another kind has it.
func (h *clsact) prepare(index int) (*netlink.BpfFilter, error) {
	base := stubName
	if h.pin != nil {
		base += pinnedStub
	}
	name := base
	err := netlink.QdiscAdd(clsactOf(index))
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("a clsact qdisc: %w", err)
	}
	if err == nil || h.own[index] {
		name = base + ownQdisc
	}
	var lists [2][]tcEntry
	for _, at := range []place{ingress, egress} {
		if lists[at], err = filtersOf(index, at.clsact()); err != nil {
			return nil, err
		}
		for _, e := range lists[at] {
			if strings.HasPrefix(e.name, stubName) && strings.HasSuffix(e.name, ownQdisc) {
				name = base + ownQdisc
			}
		}
	}
	priority := uint16(1)
	for _, e := range lists[h.place] {
		if h.place == egress && e.id == h.ingress {
			return nil, errOnlyIngress
		}
		if e.priority == priority && (e.kind != "bpf" || e.protocol != unix.ETH_P_ALL || e.chain != 0) {
			priority++
		}
	}
	return &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: index,
			Parent:    h.place.clsact(),
			Handle:    uint32(h.id), // each instance has a filter of its own
			Protocol:  unix.ETH_P_ALL,
			Priority:  priority,
		},
		Fd:           h.objs.ForwardStub.FD(),
		Name:         name,
		DirectAction: true,
	}, nil
}

// errOnlyIngress is for a qdisc of kind ingress, which another has made: it takes
// filters for what leaves, and runs them on what arrives.
var errOnlyIngress = errors.New("its qdisc of kind ingress, which isn't ours, has no place for what leaves")

func clsactOf(index int) *netlink.Clsact {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index,
		Handle:    netlink.MakeHandle(0xffff, 0),
		Parent:    netlink.HANDLE_CLSACT,
	}}
}

func (h *clsact) detach(index int) error {
	f := h.filters[index]
	if f == nil {
		return nil
	}
	delete(h.filters, index)
	return removeFilter(f)
}

// removeFilter also removes a qdisc of ours that nobody uses any more. What is
// gone already is no error.
func removeFilter(f *netlink.BpfFilter) error {
	if err := gone(netlink.FilterDel(f)); err != nil {
		return fmt.Errorf("removing the filter of device %d: %w", f.LinkIndex, err)
	}
	if !strings.HasSuffix(f.Name, ownQdisc) {
		return nil
	}
	for _, at := range []place{ingress, egress} {
		if list, err := filtersOf(f.LinkIndex, at.clsact()); err != nil || len(list) > 0 {
			return err
		}
	}
	if err := gone(netlink.QdiscDel(clsactOf(f.LinkIndex))); err != nil {
		return fmt.Errorf("removing the clsact qdisc of device %d: %w", f.LinkIndex, err)
	}
	return nil
}

// gone is no error if what was to be removed isn't there: a device (ENODEV), a
// filter (ENOENT), its qdisc (EINVAL).
func gone(err error) error {
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}

func (h *clsact) look(index int) (there bool, before string, err error) {
	if h.tcx {
		if _, before, err = lookTCX(index, h.place, 0); err != nil {
			return false, "", err
		}
	}
	list, err := filtersOf(index, h.place.clsact())
	if err != nil {
		return false, "", err
	}
	for _, e := range list {
		switch {
		case e.handle == uint32(h.id) && e.id == h.id:
			return true, before, nil
		case before == "" && e.detailed && e.chain == 0 && !strings.HasPrefix(e.name, stubName):
			before = fmt.Sprintf("the %s filter with pref %d of tc", e.kind, e.priority)
		}
	}
	return false, before, nil
}

func (h *clsact) close() error {
	var errs []error
	for index := range h.filters {
		errs = append(errs, h.detach(index))
	}
	return errors.Join(append(errs, h.unpinStub(), h.objs.Close(), h.claim.close())...)
}

// sweepStubs removes the filters that instances which were killed have left in
// the calling thread's network namespace. own are the devices whose qdisc was
// theirs and stays for now, as others use it.
func sweepStubs() (own map[int]bool, err error) {
	qdiscs, err := clsactQdiscs()
	if err != nil {
		return nil, err
	}
	own = map[int]bool{}
	for _, q := range qdiscs {
		for _, at := range []place{egress, ingress} {
			marked, err := sweepStubsAt(q.index, at)
			if err != nil {
				return nil, err
			}
			own[q.index] = own[q.index] || marked
		}
	}
	return own, nil
}

// sweepStubsAt is sweepStubs at one place of a device. marked: one of the filters
// said that the qdisc is an instance's.
func sweepStubsAt(index int, at place) (marked bool, err error) {
	list, err := filtersOf(index, at.clsact())
	if err != nil {
		return false, err
	}
	for _, e := range list {
		if !strings.HasPrefix(e.name, stubName) || strings.HasPrefix(e.name, stubName+pinnedStub) || e.id == 0 || claimed(e.id) {
			continue
		}
		if err := removeFilter(e.filter(index, at)); err != nil {
			return false, fmt.Errorf("what a killed instance left: %w", err)
		}
		marked = marked || strings.HasSuffix(e.name, ownQdisc)
	}
	return marked, nil
}
