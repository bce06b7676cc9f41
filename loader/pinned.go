// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"unsafe"

	"github.com/cilium/ebpf"

	"sluice/bpf"
)

// pinLayout is the layout of what is pinned. It goes up by one whenever a map of the
// flows, or what a number in one means, changes; TestPinLayout sees to it.
const pinLayout = 1

// SavedBytes is how much can be said of a flow beside its record.
const SavedBytes = 1280

// Names of what is pinned. about comes last, and says that the others are whole.
const (
	pinnedRecords = "records"
	pinnedWatches = "watches"
	pinnedKeys    = "keys"
	pinnedSaved   = "saved"
	pinnedAbout   = "about"
)

// about says what is pinned.
type about struct {
	Layout, MaxFlows uint32
	Netns            uint64 // inode of the network namespace
}

// flowMaps are the maps in which flows live on.
type flowMaps struct {
	records, watches, keys, saved *ebpf.Map
	about                         about
}

func (m *flowMaps) close() error {
	if m == nil {
		return nil
	}
	return errors.Join(m.records.Close(), m.watches.Close(), m.keys.Close(), m.saved.Close())
}

// find gives the maps that are pinned; nil: there are none, or not all of them.
func (p *Pin) find() (_ *flowMaps, err error) {
	m := &flowMaps{}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.close())
		}
	}()
	a, err := ebpf.LoadPinnedMap(p.file(pinnedAbout), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("what is pinned at %s can't be read: %w", p.path, err)
	}
	defer a.Close()
	if a.ValueSize() != uint32(unsafe.Sizeof(m.about)) {
		return m, nil // layout 0, which nobody knows
	}
	if err := a.Lookup(uint32(0), &m.about); err != nil {
		return nil, fmt.Errorf("what is pinned at %s can't be read: %w", p.path, err)
	}
	for name, to := range map[string]**ebpf.Map{
		pinnedRecords: &m.records, pinnedWatches: &m.watches, pinnedKeys: &m.keys, pinnedSaved: &m.saved,
	} {
		if *to, err = ebpf.LoadPinnedMap(p.file(name), nil); err != nil {
			return m, fmt.Errorf("what is pinned at %s can't be read: %w", p.path, err)
		}
	}
	return m, nil
}

// netns is the calling thread's network namespace.
func netns() (inode uint64, err error) {
	info, err := os.Stat("/proc/thread-self/ns/net")
	if err != nil {
		return 0, fmt.Errorf("the network namespace: %w", err)
	}
	return info.Sys().(*syscall.Stat_t).Ino, nil
}

// takeOver gives what is pinned, if its flows can go on: nil if nothing is, or is of use.
// dropped says what became of flows that can't: they are reset by the host's stack.
func (p *Pin) takeOver() (_ *flowMaps, dropped string, err error) {
	m, err := p.find()
	if err != nil || m == nil {
		if err == nil { // what a process that was killed in the middle left
			err = p.Clear()
		}
		return nil, "", err
	}
	defer func() {
		if err != nil || dropped != "" {
			err = errors.Join(err, m.close())
			m = nil
		}
	}()
	ns, err := netns()
	if err != nil {
		return nil, "", err
	}
	if m.about.Layout != 0 && m.about.Netns != ns {
		return nil, "", fmt.Errorf("%s is of another network namespace (inode %d): go there, by nsenter or ip netns exec, or name another path", p.path, m.about.Netns)
	}
	if m.about.Layout != pinLayout {
		return nil, fmt.Sprintf("they are of another version (layout %d, not %d)", m.about.Layout, pinLayout), p.Clear()
	}
	return m, "", nil
}

// newSaved makes the map of what is said of flows. Its entries take memory only while
// they are there.
func newSaved(maxFlows uint32) (*ebpf.Map, error) {
	return ebpf.NewMap(&ebpf.MapSpec{
		Name: "flows_saved", Type: ebpf.Hash, KeySize: 4, ValueSize: SavedBytes, MaxEntries: maxFlows, Flags: bpfNoPrealloc,
	})
}

const bpfNoPrealloc = 1 // BPF_F_NO_PREALLOC of linux/bpf.h

// put pins the maps of f's flows.
func (p *Pin) putMaps(objs *bpf.ForwardObjects, saved *ebpf.Map, maxFlows uint32) error {
	ns, err := netns()
	if err != nil {
		return err
	}
	a := about{pinLayout, maxFlows, ns}
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "flows_about", Type: ebpf.Array, KeySize: 4, ValueSize: uint32(unsafe.Sizeof(a)), MaxEntries: 1})
	if err != nil {
		return err
	}
	defer m.Close()
	if err := m.Put(uint32(0), a); err != nil {
		return fmt.Errorf("noting what is pinned: %w", err)
	}
	return errors.Join(
		p.put(pinnedRecords, objs.Records), p.put(pinnedWatches, objs.Watches), p.put(pinnedKeys, objs.FlowKeys),
		p.put(pinnedSaved, saved), p.put(pinnedAbout, m),
	)
}
