// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"sluice/bpf"
)

// Defaults of SpliceOptions, and the largest number of flows.
const (
	DefaultFlows = 65536
	DefaultMark  = 1 << 20
	limitFlows   = 1 << 24
)

// SpliceOptions says how large a Splice is. The kernel's tables take about
// 350 bytes a flow, whether used or not.
type SpliceOptions struct {
	MaxFlows int    // 0: DefaultFlows
	Mark     uint32 // bytes that may wait unsent in a socket before userspace is asked; 0: DefaultMark
	Pause    func() // for tests: what Add does before the backend's socket enters the verdict, after the client's
}

// Splice moves bytes between pairs of sockets in the kernel. Its methods may
// be called at once from several goroutines, except Drain (one at a time) and
// Close; calls for one flow must not overlap.
type Splice struct {
	objs       bpf.SpliceObjects
	attached   bool
	directions *shared[Direction]
	events     *events
	flows      *flows
	cookies    [][2]uint64 // by flow, of what Add put there
	mark       uint32
	pause      func()
	rules      rules
}

// rules are those of docs/splice.md that userspace or the program follows.
// Only tests switch one off, to show what it is for.
type rules struct {
	noDropFin, noMark, noBehind, noTarget, noAnnounce, noTrim bool // in the program
	noQueued, noUnread                                        bool // in the program
	cantTrim                                                  bool // in the program: trimming fails
	noKick                                                    bool // in Add
	noTurn                                                    bool // in the self-test: a write overtakes what waits
	noWait                                                    bool // in the self-test: a FIN is handed on at once
}

// NewSplice loads the program and its maps. It needs CAP_BPF, CAP_NET_ADMIN
// and CAP_PERFMON (*PermissionError) and a kernel with the type information
// (*KernelError); whether the kernel is safe is Selftest's to say. Close
// takes all of it out again.
func NewSplice(o SpliceOptions) (*Splice, error) { return newSplice(o, rules{}) }

func newSplice(o SpliceOptions, r rules) (_ *Splice, err error) {
	if o.MaxFlows == 0 {
		o.MaxFlows = DefaultFlows
	}
	if o.Mark == 0 {
		o.Mark = DefaultMark
	}
	if o.MaxFlows < 0 || o.MaxFlows > limitFlows || o.Mark > 1<<30 {
		return nil, fmt.Errorf("splice: %d flows (1 to %d), a mark of %d bytes (to %d): out of range", o.MaxFlows, limitFlows, o.Mark, 1<<30)
	}
	spec, err := spliceSpec(uint32(o.MaxFlows), r)
	if err != nil {
		return nil, err
	}
	s := &Splice{mark: o.Mark, pause: o.Pause, rules: r}
	defer func() {
		if err != nil {
			err = classify("splice", err)
			_ = s.Close()
		}
	}()
	if err := spec.LoadAndAssign(&s.objs, nil); err != nil {
		return nil, err
	}
	if s.directions, err = mapShared[Direction](s.objs.Directions); err != nil {
		return nil, err
	}
	if s.events, err = mapEvents(s.objs.Events); err != nil {
		return nil, err
	}
	err = link.RawAttachProgram(link.RawAttachProgramOptions{
		Target:  s.objs.Verdicts.FD(),
		Program: s.objs.Verdict,
		Attach:  ebpf.AttachSkSKBStreamVerdict,
	})
	if err != nil {
		return nil, fmt.Errorf("attaching the verdict to its map: %w", err)
	}
	s.attached = true
	s.flows = newFlows(uint32(o.MaxFlows))
	s.cookies = make([][2]uint64, o.MaxFlows)
	return s, nil
}

// spliceSpec sizes the maps and sets the program's constants.
func spliceSpec(maxFlows uint32, r rules) (*ebpf.CollectionSpec, error) {
	spec, err := bpf.LoadSplice()
	if err != nil {
		return nil, err
	}
	for _, name := range []string{bpf.SpliceMapVerdicts, bpf.SpliceMapTargets, bpf.SpliceMapIndices, bpf.SpliceMapDirections} {
		spec.Maps[name].MaxEntries = 2 * maxFlows
	}
	page := uint32(os.Getpagesize()) // a ring buffer is a power of two of pages; pages reach 64 KiB
	spec.Maps[bpf.SpliceMapEvents].MaxEntries = max(spec.Maps[bpf.SpliceMapEvents].MaxEntries, page)
	for name, off := range map[string]bool{
		bpf.SpliceVarRuleDropFin:  r.noDropFin,
		bpf.SpliceVarRuleMark:     r.noMark,
		bpf.SpliceVarRuleBehind:   r.noBehind,
		bpf.SpliceVarRuleTarget:   r.noTarget,
		bpf.SpliceVarRuleAnnounce: r.noAnnounce,
		bpf.SpliceVarRuleTrim:     r.noTrim,
		bpf.SpliceVarRuleQueued:   r.noQueued,
		bpf.SpliceVarRuleUnread:   r.noUnread,
	} {
		if err := spec.Variables[name].Set(!off); err != nil {
			return nil, err
		}
	}
	if r.cantTrim {
		if err := spec.Variables[bpf.SpliceVarTrims].Set(uint32(0)); err != nil {
			return nil, err
		}
	}
	return spec, nil
}

// Close detaches the program and frees everything, also after a start that
// failed halfway. The sockets of flows have to be closed before: one that
// leaves the map with bytes in it loses them. No Direction may be used any more.
func (s *Splice) Close() error {
	var errs []error
	if s.attached {
		s.attached = false
		errs = append(errs, link.RawDetachProgram(link.RawDetachProgramOptions{
			Target:  s.objs.Verdicts.FD(),
			Program: s.objs.Verdict,
			Attach:  ebpf.AttachSkSKBStreamVerdict,
		}))
	}
	errs = append(errs, s.events.close(), s.directions.close(), s.objs.Close())
	return errors.Join(errs...)
}

// MaxFlows is how many flows there is room for.
func (s *Splice) MaxFlows() int { return len(s.cookies) }

// Reserve takes a flow number; ok false: all are taken or were freed less
// than 100 ms ago, and the session stays in userspace.
func (s *Splice) Reserve() (flow uint32, ok bool) { return s.flows.reserve() }

// Free gives the number back, after Remove and after both sockets are closed.
func (s *Splice) Free(flow uint32) { s.flows.free(flow) }

// Direction returns the record at index 2*flow+side.
func (s *Splice) Direction(index uint32) *Direction { return s.directions.at(index) }

// Announcements is a descriptor that is readable when Drain has something to
// say: for epoll, and owned by the Splice.
func (s *Splice) Announcements() int { return s.objs.Events.FD() }

// Drain calls f with the index of each direction that began to pass bytes to
// userspace. The bytes may not be readable yet: wait for them, don't just
// read. One may be lost when very many come at once, and one may be of a flow
// that has ended: a sweep of the counters finds the former, the caller's own
// state the latter. One caller at a time.
func (s *Splice) Drain(f func(index uint32)) { s.events.drain(f) }

// SpliceCounts is what the verdict did, in runs, since it was loaded.
type SpliceCounts struct {
	Redirected     uint64
	PassedOver     uint64 // the target's queue was over the mark, or had too many buffers
	PassedBehind   uint64 // userspace hadn't forwarded what was passed before
	PassedHold     uint64 // userspace asked for it
	PassedNoTarget uint64 // the peer wasn't in the map
	PassedNoFlow   uint64 // no flow, or a removed one
	DroppedFIN     uint64
	RedirectFailed uint64 // bytes lost
	EventLost      uint64 // announcements without room
	Trimmed        uint64 // began with bytes that had come before
	OrderLost      uint64 // couldn't be trimmed: bytes lost
	DroppedUnread  uint64 // userspace had left too many unread: bytes lost
}

// Counts reads the counters; zeros if that fails.
func (s *Splice) Counts() SpliceCounts {
	n := readCounts(s.objs.SpliceCounts)
	return SpliceCounts{n(0), n(1), n(2), n(3), n(4), n(5), n(6), n(7), n(8), n(9), n(10), n(11)}
}
