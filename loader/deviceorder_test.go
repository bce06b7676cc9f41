// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// orderNow is whether v0 is called first, there and in the map.
func orderNow(t *testing.T, d *Devices, c *frameCounter, want string) {
	t.Helper()
	must(t, 0, d.Check())
	dev := deviceNow(d, "v0")
	var flags uint32
	must(t, 0, c.list.Lookup(uint32(dev.Index), &flags))
	first, why := d.First()
	if !dev.Hooked || dev.First != (want == "") || first != dev.First || (flags&deviceFirst != 0) != dev.First ||
		flags&deviceHooked == 0 || !strings.Contains(dev.Why, want) || !first && why != "v0: "+dev.Why {
		t.Errorf("%+v, %q, flags %d; want %q", dev, why, flags, want)
	}
}

func TestOrderAmongTCX(t *testing.T) {
	if !must1(t, haveTCX) {
		everyWay(t, func(*testing.T, DevicesOptions) {}) // sees that it is right not to have it
		return
	}
	everyWay(t, func(t *testing.T, o DevicesOptions) {
		veth(t, "v0", "v1")
		foreign := newFrameCounter(t, tcUnspec)
		attach := func(a link.Anchor) link.Link {
			return must1(t, func() (link.Link, error) {
				return link.AttachTCX(link.TCXOptions{Interface: index1(t, "v0"), Program: foreign.program, Attach: ebpf.AttachTCXIngress, Anchor: a})
			})
		}
		was := attach(nil)
		c := newFrameCounter(t, tcUnspec)
		d := startDevices(t, c, o)
		before := "tcx program"
		if o.Clsact {
			orderNow(t, d, c, before) // whatever is in tcx runs before tc's filters
		} else {
			orderNow(t, d, c, "")
		}
		foreign.counts(t, "v1", 5)
		c.counts(t, "v1", 5)
		must(t, 0, was.Close())
		orderNow(t, d, c, "")

		l := attach(link.Head())
		orderNow(t, d, c, before)
		must(t, 0, l.Close())
		orderNow(t, d, c, "")
		if !o.Clsact {
			l = attach(link.Tail())
			orderNow(t, d, c, "")
			must(t, 0, l.Close())
		}
	})
}

func TestOrderAmongFilters(t *testing.T) {
	alone(t, func(t *testing.T) {
		veth(t, "v0", "v1")
		index := index1(t, "v0")
		foreign := newFrameCounter(t, tcUnspec)
		bpfAt := func(priority uint16) *netlink.BpfFilter {
			return &netlink.BpfFilter{
				FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: priority},
				Fd:          foreign.program.FD(), Name: "another's", DirectAction: true,
			}
		}
		c := newFrameCounter(t, tcUnspec)
		d := startDevices(t, c, DevicesOptions{Clsact: true})
		orderNow(t, d, c, "")
		must(t, 0, netlink.FilterAdd(bpfAt(2)))
		orderNow(t, d, c, "")
		must(t, 0, netlink.FilterAdd(bpfAt(1))) // the same rank: the newest runs first
		orderNow(t, d, c, "the bpf filter with pref 1 of tc runs before ours")
		must(t, 0, netlink.FilterDel(bpfAt(1)))
		orderNow(t, d, c, "")
		must(t, 0, d.Close())
		if q := must1(t, clsactQdiscs); len(q) != 1 || q[0].index != index {
			t.Errorf("another's filter is in v0's qdisc only: %+v", q)
		}
		foreign.counts(t, "v1", 5)

		// What is there before may have the first rank, by another kind or protocol.
		must(t, 0, netlink.FilterDel(bpfAt(2)))
		ip := bpfAt(1)
		ip.Protocol = unix.ETH_P_IP
		must(t, 0, netlink.FilterAdd(ip))
		must(t, 0, netlink.FilterAdd(bpfAt(2)))
		d = startDevices(t, c, DevicesOptions{Clsact: true})
		orderNow(t, d, c, "the bpf filter with pref 1 of tc runs before ours")
		c.counts(t, "v1", 5)
		must(t, 0, d.Close())
		must(t, 0, netlink.FilterDel(ip))
		must(t, 0, netlink.FilterDel(bpfAt(2)))
		if q := must1(t, clsactQdiscs); len(q) != 1 {
			t.Errorf("a qdisc that wasn't ours: %+v", q)
		}
	})
}

// A qdisc that we made stays while somebody else's filter is in it, egress too.
func TestQdiscInUse(t *testing.T) {
	alone(t, func(t *testing.T) {
		veth(t, "v0", "v1")
		c, foreign := newFrameCounter(t, tcUnspec), newFrameCounter(t, tcUnspec)
		d := startDevices(t, c, DevicesOptions{Clsact: true})
		f := &netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{LinkIndex: index1(t, "v1"), Parent: netlink.HANDLE_MIN_EGRESS, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 1},
			Fd:          foreign.program.FD(), Name: "another's", DirectAction: true,
		}
		must(t, 0, netlink.FilterAdd(f))
		must(t, 0, d.Close())
		foreign.counts(t, "v1", 5)
		if q := must1(t, clsactQdiscs); len(q) != 1 || q[0].index != index1(t, "v1") {
			t.Errorf("%+v", q)
		}
	})
}

// A qdisc of kind ingress, which tc makes too, takes our filter and stays.
func TestIngressQdisc(t *testing.T) {
	alone(t, func(t *testing.T) {
		veth(t, "v0", "v1")
		q := &netlink.Ingress{QdiscAttrs: clsactOf(index1(t, "v0")).QdiscAttrs}
		must(t, 0, netlink.QdiscAdd(q))
		c := newFrameCounter(t, tcUnspec)
		d := startDevices(t, c, DevicesOptions{Clsact: true})
		orderNow(t, d, c, "")
		c.counts(t, "v1", 5)
		must(t, 0, d.Close())
		c.counts(t, "v1", 0)
		must(t, 0, netlink.QdiscDel(q))
	})
}

func TestDevicesWithoutPrivileges(t *testing.T) {
	everyWay(t, func(t *testing.T, o DevicesOptions) {
		veth(t, "v0", "v1")
		c := newFrameCounter(t, tcUnspec)
		before := openFDs(t)
		must(t, 0, cap.NewSet().SetProc())
		d, err := NewDevices(c.program, c.list, o)
		if d != nil || !errors.Is(err, ErrNotPermitted) {
			t.Fatalf("%v, %v", d, err)
		}
		if want := "offload: not permitted: run as root or grant CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON"; err.Error() != want {
			t.Errorf("%q, not %q", err, want)
		}
		if _, err := AnyPolicy(); !errors.Is(err, ErrNotPermitted) {
			t.Errorf("policies: %v", err)
		}
		if after := openFDs(t); after > before {
			t.Errorf("%d descriptors, %d before", after, before)
		}
	})
}

// TestOrderIsReadAmidChanges: programs that come between two system calls of a look keep
// no device from being used.
func TestOrderIsReadAmidChanges(t *testing.T) {
	if !must1(t, haveTCX) {
		everyWay(t, func(*testing.T, DevicesOptions) {})
		return
	}
	inNamespace(t, func(t *testing.T) {
		veth(t, "v0", "v1")
		c := newFrameCounter(t, tcUnspec)
		d := startDevices(t, c, DevicesOptions{})
		index := index1(t, "v0")
		ns := must1(t, func() (*os.File, error) { return os.Open("/proc/thread-self/ns/net") })
		defer ns.Close()
		foreign := newFrameCounter(t, tcUnspec)
		stop, ended := make(chan struct{}), make(chan error)
		go func() {
			runtime.LockOSThread() // not unlocked: the thread ends in the other namespace
			err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
			for err == nil {
				select {
				case <-stop:
					ended <- nil
					return
				default:
				}
				var l link.Link
				if l, err = link.AttachTCX(link.TCXOptions{Interface: index, Program: foreign.program, Attach: ebpf.AttachTCXIngress, Anchor: link.Tail()}); err == nil {
					err = l.Close()
				}
			}
			ended <- err
			<-stop
		}()
		for range 5000 {
			must(t, 0, d.Check())
			if dev := deviceNow(d, "v0"); !dev.First {
				t.Errorf("%+v", dev)
				break
			}
		}
		close(stop)
		must(t, 0, <-ended)
	})
}
