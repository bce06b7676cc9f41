// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"

	"sluice/bpf"
)

// DefaultRecords is how many flows a Forward has room for by itself, and
// LimitRecords the most that it can have.
const (
	DefaultRecords = 65536
	LimitRecords   = 1 << 22
)

// ForwardOptions says how large a Forward is. A record takes some 600 bytes of the
// kernel's memory, whether used or not.
type ForwardOptions struct {
	MaxFlows int // 0: DefaultRecords
	// Pin has the flows outlive the process. What is pinned there is taken over: with
	// flows in it the Forward has room for as many as before, whatever MaxFlows says.
	// It stays the caller's, to be closed after Close. Nil: flows end with the process.
	Pin *Pin
}

// Forward rewrites and sends on the packets of flows that were handed over. It
// sees packets only on devices that its Program runs on. Its methods may be
// called at once from several goroutines, except Drain (one at a time) and Close;
// calls for one flow must not overlap.
type Forward struct {
	objs    bpf.ForwardObjects
	records *shared[Flow]
	common  *shared[forwardCommon]
	events  *events
	flows   *flows
	max     int
	saved   *ebpf.Map  // nil: flows aren't pinned
	left    []LeftFlow // those of a process before
	dropped string

	mu  sync.Mutex // the buffer of orders
	buf []byte
}

type forwardCommon struct{ raw bpf.ForwardForwardShared }

// NewForward loads the programs and their maps. It needs CAP_BPF, CAP_NET_ADMIN and
// CAP_PERFMON (*PermissionError) and a kernel with type information, bpf_loop
// (5.17) and bpf_redirect_neigh (5.10) (*KernelError). Close takes all of it out
// again.
func NewForward(o ForwardOptions) (*Forward, error) { return newForward(o, nil) }

// newForward also has edit, if not nil, change what is loaded.
func newForward(o ForwardOptions, edit func(*ebpf.CollectionSpec)) (_ *Forward, err error) {
	if o.MaxFlows == 0 {
		o.MaxFlows = DefaultRecords
	}
	if o.MaxFlows < 0 || o.MaxFlows > LimitRecords {
		return nil, fmt.Errorf("offload: %d flows, which is not 1 to %d", o.MaxFlows, LimitRecords)
	}
	spec, err := forwardSpec(uint32(o.MaxFlows))
	if err != nil {
		return nil, err
	}
	if edit != nil {
		edit(spec)
	}
	f := &Forward{max: o.MaxFlows, buf: make([]byte, orderSize)}
	defer func() {
		if err != nil {
			err = classify("offload", err)
			_ = f.Close()
		}
	}()
	if err := f.load(spec, o.Pin); err != nil {
		return nil, err
	}
	if f.records, err = mapShared[Flow](f.objs.Records); err != nil {
		return nil, err
	}
	if f.common, err = mapShared[forwardCommon](f.objs.ForwardCommon); err != nil {
		return nil, err
	}
	if f.events, err = mapEvents(f.objs.ForwardEvents); err != nil {
		return nil, err
	}
	if o.Pin != nil {
		if err := f.collectLeft(); err != nil {
			return nil, err
		}
	}
	f.flows = newFlows(uint32(f.max))
	f.flows.keep(f.left)
	return f, nil
}

// load loads the programs, with the flows that are pinned if there are any.
func (f *Forward) load(spec *ebpf.CollectionSpec, p *Pin) (err error) {
	if p == nil {
		return spec.LoadAndAssign(&f.objs, nil)
	}
	m, err := f.pin(p, spec)
	if err != nil {
		return err
	}
	var o ebpf.CollectionOptions
	if m != nil {
		defer func() { err = errors.Join(err, m.close()) }()
		o.MapReplacements = map[string]*ebpf.Map{
			bpf.ForwardMapRecords: m.records, bpf.ForwardMapWatches: m.watches, bpf.ForwardMapFlowKeys: m.keys,
		}
	}
	if err := spec.LoadAndAssign(&f.objs, &o); err != nil {
		return err
	}
	if m != nil {
		f.saved, err = m.saved.Clone()
		return err
	}
	if f.saved, err = newSaved(uint32(f.max)); err != nil {
		return err
	}
	return p.putMaps(&f.objs, f.saved, uint32(f.max))
}

// forwardSpec sizes the maps.
func forwardSpec(maxFlows uint32) (*ebpf.CollectionSpec, error) {
	spec, err := bpf.LoadForward()
	if err != nil {
		return nil, err
	}
	sizeForward(spec, maxFlows)
	page := uint32(os.Getpagesize()) // a ring buffer is a power of two of pages; pages reach 64 KiB
	spec.Maps[bpf.ForwardMapForwardEvents].MaxEntries = max(spec.Maps[bpf.ForwardMapForwardEvents].MaxEntries, page)
	return spec, nil
}

func sizeForward(spec *ebpf.CollectionSpec, maxFlows uint32) {
	spec.Maps[bpf.ForwardMapRecords].MaxEntries = maxFlows
	spec.Maps[bpf.ForwardMapWatches].MaxEntries = maxFlows
	spec.Maps[bpf.ForwardMapFlowKeys].MaxEntries = 2 * maxFlows
}

// Close frees everything, also after a start that failed halfway, but what is pinned.
// The program has to be off all devices before, or pinned there. No Flow may be used any
// more.
func (f *Forward) Close() error {
	return errors.Join(f.events.close(), f.common.close(), f.records.close(), f.saved.Close(), f.objs.Close())
}

// Program is what is to run first on what arrives by each device. It stays the
// Forward's.
func (f *Forward) Program() *ebpf.Program { return f.objs.Forward }

// DeviceMap is where Devices notes where the program runs. It stays the Forward's.
func (f *Forward) DeviceMap() *ebpf.Map { return f.objs.ForwardDevices }

// MaxFlows is how many flows there is room for.
func (f *Forward) MaxFlows() int { return f.max }

// Reserve takes a flow number; ok false: all are taken or were freed less than
// 100 ms ago, and the session stays on a lower datapath.
func (f *Forward) Reserve() (flow uint32, ok bool) { return f.flows.reserve() }

// Flow returns the record of a number that Reserve gave.
func (f *Forward) Flow(flow uint32) *Flow { return f.records.at(flow) }

// Release takes a flow out of the kernel, in whatever state it is, and gives its
// number back. What still comes of it is the host's stack's again.
func (f *Forward) Release(flow uint32) {
	f.Forget(flow)
	r := f.records.at(flow)
	listed := r.state() != stateFree // else the keys are nobody's, or another flow's that Enlist refused it for
	r.withdraw()
	for side := range 2 {
		if listed && r.Flags()&(goneClient<<side) == 0 {
			key := r.key(side)
			_ = f.objs.FlowKeys.Delete(&key)
		}
	}
	r.clear()
	f.flows.free(flow)
}

// Announcements is a descriptor that is readable when Drain has something to say:
// for epoll, and owned by the Forward. It is made readable once in 10 ms at most:
// who was woken has to drain again that much later, until there was nothing.
func (f *Forward) Announcements() int { return f.objs.ForwardEvents.FD() }

// EventKind is what happened to a flow.
type EventKind uint8

// The kinds, as in bpf/forward_maps.h.
const (
	FlowCut   EventKind = iota + 1 // its packets are forwarded from now on
	FlowFins                       // both ends of stream have been seen
	FlowEnded                      // both are acknowledged, or one side has reset it
	FlowAsked                      // a packet came after Reset
)

// Drain calls do for each event. One may be lost when very many come at once, and
// one may be of a flow that has ended: a scan of the records finds the former, the
// caller's own state the latter. One caller at a time.
func (f *Forward) Drain(do func(kind EventKind, flow uint32)) {
	f.events.drain(func(e uint32) { do(EventKind(e>>24), e&(1<<24-1)) })
}

// Ends is how many flows have ended as their ends see it, by both ends of stream or
// a reset, since the program was loaded.
func (f *Forward) Ends() uint64 { return atomic.LoadUint64(&f.common.at(0).raw.Ends) }

// Outcomes are the program's counts by name, each of them, zero or not.
func (f *Forward) Outcomes() []Outcome { return outcomes(f.objs.ForwardCounts, forwardOutcomes()) }

// forwardOutcomes are enum forward_outcome of bpf/forward_maps.h, in order.
func forwardOutcomes() []string {
	return []string{"sent", "up", "cut", "unquiet", "odd", "ttl", "reset", "unsure", "icmp", "lost_event", "ecn", "plain"}
}
