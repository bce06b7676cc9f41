// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"sluice/bpf"
	"sluice/internal/nstest"
)

func openPin(t *testing.T, path string) *Pin {
	t.Helper()
	p := must1(t, func() (*Pin, error) { return OpenPin(path) })
	t.Cleanup(func() { must(t, 0, p.Close()) })
	return p
}

// TestPinnedHooks: programs of an instance that was killed run on where they are pinned,
// until the next with that Pin has its own there, or the Pin is cleared; others leave
// them alone.
func TestPinnedHooks(t *testing.T) {
	everyWay(t, func(t *testing.T, o DevicesOptions) {
		path := nstest.PinPath(t)
		veth(t, "v0", "v1")
		if !o.Clsact {
			must(t, 0, netlink.QdiscAdd(clsactOf(index1(t, "v0"))))
		}
		older := startDevices(t, newFrameCounter(t, tcUnspec), o)
		other := startPinnedInstance(t, o, path)
		past, f := behind(t, "v0")
		past.counts(t, "v1", 0) // it drops them
		if _, err := OpenPin(path); !errors.Is(err, ErrPinned) {
			t.Errorf("its path can be had: %v", err)
		}
		other.kill(t)
		past.counts(t, "v1", 0)
		must(t, 0, older.Check())
		if first, why := older.First(); !first { // what a killed one has pinned isn't a stranger's
			t.Error(why)
		}
		must(t, 0, older.Close())
		must(t, 0, startDevices(t, newFrameCounter(t, tcUnspec), o).Close()) // which removes what others have left
		past.counts(t, "v1", 0)

		o.Pin = openPin(t, path)
		c := newFrameCounter(t, tcUnspec)
		d := startDevices(t, c, o)
		hooked(t, d, c, "v0", true)
		past.counts(t, "v1", 5)
		other.left().gone(t)
		must(t, 0, d.Leave())
		c.counts(t, "v1", 5)

		// The other way of hooking, if there is one, takes over as well.
		o.Clsact = !o.Clsact
		c2 := newFrameCounter(t, tcUnspec)
		d = startDevices(t, c2, o)
		must(t, 0, d.Leave())
		c.counts(t, "v1", 0)
		c2.counts(t, "v1", 5)
		must(t, 0, o.Pin.Clear())
		must(t, 0, netlink.FilterDel(f))
		must(t, 0, netlink.QdiscDel(clsactOf(index1(t, "v0")))) // the test's, or kept by its filter
		c2.counts(t, "v1", 0)
		nothingHooked(t)
		must(t, 0, o.Pin.Close())
	})
}

// TestPinnedFlows: what becomes of what is pinned when the next Forward is made.
func TestPinnedFlows(t *testing.T) {
	key, saved := bpf.ForwardFlowKey{Sport: 1}, []byte("what is known of it")
	live := func(t *testing.T, f *Forward) {
		must(t, 0, f.Save(3, saved))
		f.Flow(3).raw.State = stateForwarded
		f.Flow(3).raw.Side[1].Dport = 1
		must(t, 0, f.objs.FlowKeys.Put(&key, &bpf.ForwardFlowRef{Slot: 3}))
	}
	for name, tt := range map[string]struct {
		before func(t *testing.T, f *Forward)
		then   func(t *testing.T, p *Pin) // when no process has it
		check  func(t *testing.T, f *Forward, err error)
	}{
		"flows go on": {before: live, check: func(t *testing.T, f *Forward, err error) {
			must(t, 0, err)
			left := f.Left()
			if len(left) != 1 || left[0].Flow != 3 || !strings.HasPrefix(string(left[0].Saved), string(saved)) || !f.Holds() || !f.Pinned() || f.MaxFlows() != 8 {
				t.Errorf("left: %v, room for %d", left, f.MaxFlows())
			}
			got := map[uint32]bool{}
			for range 7 {
				n, ok := f.flows.reserve()
				for !ok { // freed a moment ago
					n, ok = f.flows.reserve()
				}
				got[n] = true
			}
			if got[3] || len(got) != 7 {
				t.Errorf("numbers %v are given out, beside 3", got)
			}
		}},
		"none are left": {check: func(t *testing.T, f *Forward, err error) {
			must(t, 0, err)
			if len(f.Left()) != 0 || f.Holds() || f.MaxFlows() != 16 {
				t.Errorf("left: %v, room for %d", f.Left(), f.MaxFlows())
			}
		}},
		"a key of nobody": {before: func(t *testing.T, f *Forward) {
			live(t, f)
			for port := range uint16(4) { // to a record that is free, and to one of other addresses
				must(t, 0, f.objs.FlowKeys.Put(&bpf.ForwardFlowKey{Sport: 100 + port}, &bpf.ForwardFlowRef{Slot: 2 + uint32(port%2)}))
			}
		}, check: func(t *testing.T, f *Forward, err error) {
			must(t, 0, err)
			var k bpf.ForwardFlowKey
			var r bpf.ForwardFlowRef
			n := 0
			for each := f.objs.FlowKeys.Iterate(); each.Next(&k, &r); n++ {
				if k != key {
					t.Errorf("%+v is left", k)
				}
			}
			if n != 1 {
				t.Errorf("%d keys", n)
			}
		}},
		"another layout": {before: live, then: func(t *testing.T, p *Pin) {
			alterAbout(t, p, func(a *about) { a.Layout++ })
		}, check: func(t *testing.T, f *Forward, err error) {
			must(t, 0, err)
			if len(f.Left()) != 0 || !strings.Contains(f.Dropped(), "layout 2, not 1") {
				t.Errorf("left: %v, dropped %q", f.Left(), f.Dropped())
			}
		}},
		"another namespace": {before: live, then: func(t *testing.T, p *Pin) {
			alterAbout(t, p, func(a *about) { a.Netns++ })
		}, check: func(t *testing.T, f *Forward, err error) {
			if err == nil || !strings.Contains(err.Error(), "is of another network namespace") {
				t.Errorf("error %v", err)
			}
		}},
		"a start that was killed": {before: live, then: func(t *testing.T, p *Pin) {
			must(t, 0, p.remove(pinnedAbout))
		}, check: func(t *testing.T, f *Forward, err error) {
			must(t, 0, err)
			if len(f.Left()) != 0 || f.Dropped() != "" {
				t.Errorf("left: %v, dropped %q", f.Left(), f.Dropped())
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			p := openPin(t, nstest.PinPath(t))
			defer func() { must(t, 0, p.Clear()) }()
			f := must1(t, func() (*Forward, error) { return NewForward(ForwardOptions{MaxFlows: 8, Pin: p}) })
			if tt.before != nil {
				tt.before(t, f)
			}
			must(t, 0, f.Close())
			if tt.then != nil {
				tt.then(t, p)
			}
			f, err := NewForward(ForwardOptions{MaxFlows: 16, Pin: p})
			tt.check(t, f, err)
			if err == nil {
				must(t, 0, f.Close())
			}
		})
	}
}

func alterAbout(t *testing.T, p *Pin, change func(*about)) {
	t.Helper()
	m := must1(t, func() (*ebpf.Map, error) { return ebpf.LoadPinnedMap(p.file(pinnedAbout), nil) })
	defer m.Close()
	var a about
	must(t, 0, m.Lookup(uint32(0), &a))
	change(&a)
	must(t, 0, m.Put(uint32(0), a))
}

// TestPinLayout: whoever changes what is pinned makes pinLayout another number, and
// writes the new layout here.
func TestPinLayout(t *testing.T) {
	const layout = `record 320: State 0+4 Flags 4+4 Index 8+4 End 12+4 CutNs 16+8 FirstNs 24+8 EndedNs 32+8 Read 40+8 Unused 48+16 Side 64+256
side 128: Saddr 0+16 Daddr 16+16 Sport 32+2 Dport 34+2 Ifindex 36+4 AddrDiff 40+4 SeqAdd 44+4 AckAdd 48+4 TsvalAdd 52+4 TsecrAdd 56+4 TsecrMin 60+4 ScaleIn 64+1 ScaleOut 65+1 Widest 66+2 Next 68+4 Fin 72+4 Edge 76+4 Acked 80+8 Base 88+8 DataNs 96+8 SeenNs 104+8 Packets 112+8 Cut 120+4 Asked 124+4
key 36: Saddr 0+16 Daddr 16+16 Sport 32+2 Dport 34+2
ref 8: Slot 0+4 Side 4+4
watch 48
`
	var b strings.Builder
	record := bpf.ForwardFlowRecord{}
	for _, v := range []struct {
		name string
		any
	}{{"record", record}, {"side", record.Side[0]}, {"key", bpf.ForwardFlowKey{}}, {"ref", bpf.ForwardFlowRef{}}} {
		of := reflect.TypeOf(v.any)
		fmt.Fprintf(&b, "%s %d:", v.name, of.Size())
		for i := 1; i < of.NumField(); i++ { // the first says that it is the host's layout
			f := of.Field(i)
			fmt.Fprintf(&b, " %s %d+%d", f.Name, f.Offset, f.Type.Size())
		}
		fmt.Fprintln(&b)
	}
	spec := must1(t, bpf.LoadForward)
	w := spec.Maps[bpf.ForwardMapWatches]
	fmt.Fprintf(&b, "watch %d\n", w.ValueSize)
	if got := b.String(); got != layout {
		t.Errorf("the layout is\n%swhich isn't that of layout %d", got, pinLayout)
	}
}
