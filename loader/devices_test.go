// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestDevicesAreHooked(t *testing.T) {
	everyWay(t, func(t *testing.T, o DevicesOptions) {
		veth(t, "v0", "v1")
		c := newFrameCounter(t, -1)
		startDevices(t, c, o).Close() // what is opened once for all: type information, probes
		before := openFDs(t)
		d := startDevices(t, c, o)
		hooked(t, d, c, "v0", true)
		hooked(t, d, c, "v1", true)
		hooked(t, d, c, "lo", false)
		c.counts(t, "v1", 5)
		c.counts(t, "v0", 5)
		if first, why := d.First(); !first || why != "" {
			t.Error(first, why)
		}
		must(t, 0, d.Check())
		must(t, 0, d.Close())
		c.counts(t, "v1", 0)
		nothingHooked(t)
		if after := openFDs(t); after > before {
			t.Errorf("%d descriptors, %d before", after, before)
		}
		var key, flags uint32
		if c.list.Iterate().Next(&key, &flags) {
			t.Errorf("device %d is still noted", key)
		}
	})
}

// The real program goes where the tests' own does, and passes what isn't its own.
func TestForwardIsHooked(t *testing.T) {
	everyWay(t, func(t *testing.T, o DevicesOptions) {
		veth(t, "v0", "v1")
		f, err := NewForward(ForwardOptions{MaxFlows: 8})
		if running().version.before(5, 17) { // no bpf_loop
			if !errors.Is(err, ErrKernel) {
				t.Error(err)
			}
			return
		}
		must(t, 0, err)
		defer f.Close()
		o.Egress = f.StripProgram()
		d, err := NewDevices(f.Program(), f.DeviceMap(), o)
		must(t, 0, err)
		if dev := deviceNow(d, "v0"); !dev.Hooked || !dev.First || dev.NoEgress != "" {
			t.Errorf("%+v", dev)
		}
		if o.Clsact {
			past, filter := behind(t, "v0")
			past.counts(t, "v1", 5)
			must(t, 0, netlink.FilterDel(filter))
		}
		must(t, 0, d.Close())
		nothingHooked(t)
	})
}

func TestDevicesAreFollowed(t *testing.T) {
	everyWay(t, func(t *testing.T, o DevicesOptions) {
		c := newFrameCounter(t, -1)
		d := startDevices(t, c, o)
		start := time.Now()
		veth(t, "v0", "v1")
		hooked(t, d, c, "v0", true)
		t.Logf("hooked within %v of its making", time.Since(start))
		c.counts(t, "v1", 5)

		must(t, 0, netlink.LinkSetDown(link1(t, "v0"))) // one that is up has a new name since Linux 6.2 only
		must(t, 0, netlink.LinkSetName(link1(t, "v0"), "w0"))
		up(t, "w0", "v1")
		hooked(t, d, c, "w0", true)
		c.counts(t, "v1", 5)

		// A bridge takes it: packets of the host arrive by the bridge.
		must(t, 0, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs("br0")}))
		must(t, 0, netlink.LinkSetUp(link1(t, "br0")))
		hooked(t, d, c, "br0", true)
		must(t, 0, netlink.LinkSetMaster(link1(t, "w0"), link1(t, "br0")))
		hooked(t, d, c, "w0", false)
		within(t, "the bridge's port passes", func() bool {
			before := c.frames(t)
			sendFrames(t, "v1", 1)
			return c.frames(t) > before
		})
		must(t, 0, netlink.LinkSetNoMaster(link1(t, "w0"))) // a notice says AF_BRIDGE's w0 is gone
		hooked(t, d, c, "w0", true)
		c.counts(t, "v1", 5)

		// Its index is another's at once.
		index := index1(t, "w0")
		must(t, 0, netlink.LinkDel(link1(t, "w0")))
		again := attrs("x0")
		again.Index = index
		must(t, 0, netlink.LinkAdd(&netlink.Veth{LinkAttrs: again, PeerName: "x1"}))
		up(t, "x0", "x1")
		hooked(t, d, c, "x0", true)
		c.counts(t, "x1", 5)
		must(t, 0, netlink.LinkDel(link1(t, "x0")))
		within(t, "x0 is forgotten", func() bool { return deviceNow(d, "x0") == Device{} })
		must(t, 0, netlink.LinkDel(link1(t, "br0")))
		must(t, 0, d.Check())
		must(t, 0, d.Close())
		nothingHooked(t)
	})
}

// Notices are lost when many devices come at once and nobody reads: all are
// asked for, and nothing of those that went is kept.
func TestManyDevicesAtOnce(t *testing.T) {
	everyWay(t, func(t *testing.T, o DevicesOptions) {
		c := newFrameCounter(t, -1)
		d := startDevices(t, c, o)
		before := openFDs(t)
		const pairs = 60
		d.mu.Lock() // whoever follows waits
		for i := range pairs {
			veth(t, fmt.Sprint("a", i), fmt.Sprint("b", i))
		}
		for i := range pairs / 2 {
			must(t, 0, netlink.LinkDel(link1(t, fmt.Sprint("a", i))))
		}
		d.mu.Unlock()
		for i := pairs / 2; i < pairs; i++ {
			hooked(t, d, c, fmt.Sprint("a", i), true)
			hooked(t, d, c, fmt.Sprint("b", i), true)
		}
		if n := len(d.List()); n != 1+pairs {
			t.Errorf("%d devices", n)
		}
		for i := pairs / 2; i < pairs; i++ {
			must(t, 0, netlink.LinkDel(link1(t, fmt.Sprint("a", i))))
		}
		within(t, "all are forgotten", func() bool { return len(d.List()) == 1 })
		if after := openFDs(t); after > before {
			t.Errorf("%d descriptors, %d before", after, before)
		}
	})
}

// More devices than the map has room for are refused, and tried again.
func TestMoreDevicesThanRoom(t *testing.T) {
	everyWay(t, func(t *testing.T, o DevicesOptions) {
		c := newFrameCounter(t, -1)
		for i := range c.list.MaxEntries() - 1 {
			must(t, 0, c.list.Put(1000000+i, uint32(0)))
		}
		veth(t, "v0", "v1")
		d := startDevices(t, c, o)
		n, why := 0, ""
		for _, name := range []string{"v0", "v1"} {
			if dev := deviceNow(d, name); dev.Hooked {
				n++
			} else {
				why = dev.Why
			}
		}
		if n != 1 || !strings.Contains(why, "there is room for 1000") {
			t.Errorf("%d hooked; %q", n, why)
		}
		must(t, 0, c.list.Delete(uint32(1000000)))
		must(t, 0, d.Check())
		hooked(t, d, c, "v0", true)
		hooked(t, d, c, "v1", true)
	})
}

// What others take away is put back.
func TestCheckHooksAgain(t *testing.T) {
	everyWay(t, func(t *testing.T, o DevicesOptions) {
		veth(t, "v0", "v1")
		c := newFrameCounter(t, -1)
		d := startDevices(t, c, o)
		index := index1(t, "v0")
		before := openFDs(t)
		for range 3 {
			switch h := d.hooks.(type) {
			case *tcx:
				must(t, 0, h.links[index].Detach())
			case *clsact:
				must(t, 0, netlink.QdiscDel(clsactOf(index)))
			}
			c.counts(t, "v1", 0)
			must(t, 0, d.Check())
			hooked(t, d, c, "v0", true)
			c.counts(t, "v1", 5)
		}
		if after := openFDs(t); after > before {
			t.Errorf("%d descriptors, %d before", after, before)
		}
		must(t, 0, d.Close())
		nothingHooked(t)
	})
}

// rx-gro-list may be switched while packets flow; what is above is refused too.
func TestDeviceWithGROList(t *testing.T) {
	everyWay(t, func(t *testing.T, o DevicesOptions) {
		veth(t, "v0", "v1")
		must(t, 0, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs("br0")}))
		c := newFrameCounter(t, -1)
		d := startDevices(t, c, o)
		hooked(t, d, c, "v0", true)
		setGROList(t, "v0", true)
		hooked(t, d, c, "v0", false)
		hooked(t, d, c, "v1", true)
		must(t, 0, netlink.LinkSetMaster(link1(t, "v0"), link1(t, "br0")))
		hooked(t, d, c, "br0", false)
		if why := deviceNow(d, "br0").Why; !strings.Contains(why, "rx-gro-list is on at v0") {
			t.Error(why)
		}
		setGROList(t, "v0", false)
		hooked(t, d, c, "br0", true)
		must(t, 0, netlink.LinkSetNoMaster(link1(t, "v0")))
		hooked(t, d, c, "v0", true)
	})
}

func setGROList(t *testing.T, name string, on bool) {
	t.Helper()
	f := must1(t, newOffloads)
	defer f.close()
	const ethtoolSFeatures, blocks = 0x3b, 4
	set := make([]uint32, 2+2*blocks) // cmd, size, then valid and requested of each block
	set[0], set[1] = ethtoolSFeatures, uint32(f.groList/32+1)
	bit := uint32(1) << (f.groList % 32)
	set[2+2*(f.groList/32)] = bit
	if on {
		set[3+2*(f.groList/32)] = bit
	}
	must(t, 0, f.ask(name, unsafe.Pointer(&set[0])))
	if got, err := f.hasGROList(name); err != nil || got != on {
		t.Fatalf("rx-gro-list of %s is %v (%v)", name, got, err)
	}
}

// Whichever step of a start runs out of descriptors, all before it is undone.
func TestFailedDevicesLeaveNothing(t *testing.T) {
	everyWay(t, func(t *testing.T, o DevicesOptions) {
		veth(t, "v0", "v1")
		c := newFrameCounter(t, -1)
		o.Egress = newFrameCounter(t, -1).program
		startDevices(t, c, o).Close()
		var old unix.Rlimit
		must(t, 0, unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
		before, failures := openFDs(t), 0
		for n := before; ; n++ {
			if n > before+100 {
				t.Fatal("it never starts")
			}
			must(t, 0, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(n), Max: old.Max}))
			d, err := NewDevices(c.program, c.list, o)
			must(t, 0, unix.Setrlimit(unix.RLIMIT_NOFILE, &old))
			if err == nil {
				// Devices without a descriptor for their link are tried again.
				must(t, 0, d.Check())
				hooked(t, d, c, "v0", true)
				must(t, 0, d.Close())
				nothingHooked(t)
				break
			}
			failures++
			runtime.GC() // a descriptor closed by a finalizer only is a leak too, but not one of this test
			if after := openFDs(t); after > before {
				t.Fatalf("with %d descriptors (%v): %d are open, %d before", n, err, after, before)
			}
			nothingHooked(t)
		}
		if failures < 2 { // before counts the directory that was read, too
			t.Errorf("only %d starts failed", failures)
		}
	})
}

// Without notices a device that comes isn't hooked before the look of the next second,
// which lists all once nobody follows: a flow whose route leads to it is lost there.
func TestDevicesUnfollowed(t *testing.T) {
	everyWay(t, func(t *testing.T, o DevicesOptions) {
		c := newFrameCounter(t, -1)
		d := startDevices(t, c, o)
		must(t, 0, d.notices.close())
		<-d.followed
		veth(t, "v0", "v1")
		if dev := deviceNow(d, "v0"); dev != (Device{}) {
			t.Errorf("%+v is known", dev)
		}
		c.counts(t, "v1", 0)
		must(t, 0, d.Check())
		hooked(t, d, c, "v0", true)
		_ = d.Close() // whose notices are closed
		nothingHooked(t)
	})
}
