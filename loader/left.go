// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"sluice/bpf"
)

// LeftFlow is a flow of a process before, by its number, with what that saved of it;
// nil: nothing.
type LeftFlow struct {
	Flow  uint32
	Saved []byte // SavedBytes long
}

// Left are the flows that were pinned when the Forward was made. Their numbers are in
// use until Release.
func (f *Forward) Left() []LeftFlow { return f.left }

// Dropped says why flows that were pinned are no more; "": none were.
func (f *Forward) Dropped() string { return f.dropped }

// Pinned says whether flows outlive the Forward.
func (f *Forward) Pinned() bool { return f.saved != nil }

// Save keeps what a later process has to know of a flow beside its record, SavedBytes at
// most, until Forget. Without a Pin it does nothing.
func (f *Forward) Save(flow uint32, what []byte) error {
	if f.saved == nil {
		return nil
	}
	if len(what) > SavedBytes {
		return fmt.Errorf("offload: %d bytes to be saved of a flow, which has room for %d", len(what), SavedBytes)
	}
	var value [SavedBytes]byte
	copy(value[:], what)
	if err := f.saved.Put(flow, &value); err != nil {
		return fmt.Errorf("offload: saving a flow: %w", err)
	}
	return nil
}

// Forget undoes Save.
func (f *Forward) Forget(flow uint32) {
	if f.saved != nil {
		_ = f.saved.Delete(flow)
	}
}

// Holds says whether a flow is saved: whoever pins it next finds it.
func (f *Forward) Holds() bool {
	if f.saved == nil {
		return false
	}
	var first uint32
	return f.saved.NextKey(nil, &first) == nil
}

// collectLeft finds the flows that are pinned.
func (f *Forward) collectLeft() error {
	if err := f.dropStaleKeys(); err != nil {
		return err
	}
	saved := map[uint32][]byte{}
	var flow uint32
	var value [SavedBytes]byte
	for each := f.saved.Iterate(); ; {
		if !each.Next(&flow, &value) {
			if err := each.Err(); err != nil {
				return fmt.Errorf("offload: reading the flows that are pinned: %w", err)
			}
			break
		}
		saved[flow] = append([]byte(nil), value[:]...)
	}
	for flow := range uint32(f.max) {
		if what := saved[flow]; what != nil || f.records.at(flow).state() != stateFree {
			f.left = append(f.left, LeftFlow{flow, what})
		}
	}
	return nil
}

// dropStaleKeys deletes the keys of flows that a process was giving back when it was
// killed: the next flow of their number would get their packets.
func (f *Forward) dropStaleKeys() error {
	var (
		key   bpf.ForwardFlowKey
		ref   bpf.ForwardFlowRef
		stale []bpf.ForwardFlowKey
	)
	each := f.objs.FlowKeys.Iterate()
	for each.Next(&key, &ref) {
		if r := f.records.at(ref.Slot); r.state() == stateFree || r.key(int(ref.Side)) != key {
			stale = append(stale, key)
		}
	}
	if err := each.Err(); err != nil {
		return fmt.Errorf("offload: reading the keys that are pinned: %w", err)
	}
	for i := range stale {
		_ = f.objs.FlowKeys.Delete(&stale[i])
	}
	return nil
}

// pin takes over what is pinned at p, and has spec as large as that. The maps are to be
// closed once the programs are loaded.
func (f *Forward) pin(p *Pin, spec *ebpf.CollectionSpec) (_ *flowMaps, err error) {
	m, dropped, err := p.takeOver()
	if err != nil {
		return nil, err
	}
	f.dropped = dropped
	if m == nil {
		return nil, nil
	}
	if int(m.about.MaxFlows) != f.max {
		if hasNothing(m.keys) && hasNothing(m.saved) {
			return nil, errors.Join(m.close(), p.Clear())
		}
		f.max = int(m.about.MaxFlows)
		sizeForward(spec, m.about.MaxFlows)
	}
	return m, nil
}

func hasNothing(m *ebpf.Map) bool {
	key := make([]byte, m.KeySize())
	return errors.Is(m.NextKey(nil, &key), ebpf.ErrKeyNotExist)
}
