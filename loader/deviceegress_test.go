// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"testing"

	"github.com/vishvananda/netlink"
)

// bothPlaces starts Devices with a program for what arrives and one for what leaves.
func bothPlaces(t *testing.T, o DevicesOptions) (d *Devices, in, out *frameCounter) {
	t.Helper()
	in, out = newFrameCounter(t, tcUnspec), newFrameCounter(t, tcUnspec)
	o.Egress = out.program
	return startDevices(t, in, o), in, out
}

// leaves sees that both programs are on the device, or the one for what leaves isn't.
func leaves(t *testing.T, d *Devices, in *frameCounter, name string, want bool) {
	t.Helper()
	hooked(t, d, in, name, true)
	if dev := deviceNow(d, name); (dev.NoEgress == "") != want {
		t.Errorf("%+v, want egress %v", dev, want)
	}
}

func TestEgress(t *testing.T) {
	everyWay(t, func(t *testing.T, o DevicesOptions) {
		veth(t, "v0", "v1")
		d, in, out := bothPlaces(t, o)
		must(t, 0, d.Close())
		nothingHooked(t)
		before := openFDs(t)
		o.Egress = out.program
		d = startDevices(t, in, o)
		opened := openFDs(t)
		for _, name := range []string{"v0", "v1"} {
			leaves(t, d, in, name, true)
		}
		hooked(t, d, in, "lo", false)
		in.counts(t, "v1", 5)
		out.counts(t, "v1", 5)

		// Devices come and go, and one that is a bridge's port is let go.
		veth(t, "w0", "w1")
		leaves(t, d, in, "w0", true)
		leaves(t, d, in, "w1", true)
		out.counts(t, "w1", 5)
		must(t, 0, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs("br0")}))
		must(t, 0, netlink.LinkSetMaster(link1(t, "w1"), link1(t, "br0")))
		hooked(t, d, in, "w1", false)
		out.counts(t, "w1", 0)
		must(t, 0, netlink.LinkDel(link1(t, "w0")))
		must(t, 0, netlink.LinkDel(link1(t, "br0")))
		within(t, "all are forgotten", func() bool { return len(d.List()) == 3 })
		must(t, 0, d.Check())
		if after := openFDs(t); after > opened {
			t.Errorf("%d descriptors, %d before", after, opened)
		}
		must(t, 0, d.Close())
		out.counts(t, "v1", 0)
		nothingHooked(t)
		if after := openFDs(t); after > before {
			t.Errorf("%d descriptors, %d before", after, before)
		}
	})
}

// What others take away is put back, on either side.
func TestCheckHooksEgressAgain(t *testing.T) {
	everyWay(t, func(t *testing.T, o DevicesOptions) {
		veth(t, "v0", "v1")
		d, in, out := bothPlaces(t, o)
		index := index1(t, "v0")
		before := openFDs(t)
		takeAway := map[string]func(){
			"in": func() { takeAway(t, d.hooks, index) }, "out": func() { takeAway(t, d.out, index) },
			"both": func() { takeAway(t, d.hooks, index); takeAway(t, d.out, index) },
		}
		if o.Clsact {
			takeAway["qdisc"] = func() { must(t, 0, netlink.QdiscDel(clsactOf(index))) }
		}
		for name, take := range takeAway {
			t.Log(name)
			take()
			if name != "out" {
				in.counts(t, "v1", 0)
			}
			if name != "in" {
				out.counts(t, "v0", 0)
			}
			must(t, 0, d.Check())
			leaves(t, d, in, "v0", true)
			in.counts(t, "v1", 5)
			out.counts(t, "v0", 5)
		}
		if after := openFDs(t); after > before {
			t.Errorf("%d descriptors, %d before", after, before)
		}
		must(t, 0, d.Close())
		nothingHooked(t)
	})
}

// takeAway removes what is attached, as another program may.
func takeAway(t *testing.T, h hooks, index int) {
	t.Helper()
	switch h := h.(type) {
	case *tcx:
		must(t, 0, h.links[index].Detach())
	case *clsact:
		f := *h.filters[index]
		must(t, 0, netlink.FilterDel(&f))
	}
}

// What a killed instance left on either side goes, and a device does without what it
// has no place for.
func TestEgressOfOthers(t *testing.T) {
	everyWay(t, func(t *testing.T, o DevicesOptions) {
		veth(t, "v0", "v1")
		other := startInstance(t, o)
		other.kill(t)
		if o.Clsact { // a qdisc of kind ingress, which tc makes too
			must(t, 0, netlink.QdiscDel(clsactOf(index1(t, "v1"))))
			must(t, 0, netlink.QdiscAdd(&netlink.Ingress{QdiscAttrs: clsactOf(index1(t, "v1")).QdiscAttrs}))
		}
		d, in, out := bothPlaces(t, o)
		leaves(t, d, in, "v0", true)
		leaves(t, d, in, "v1", !o.Clsact)
		out.counts(t, "v0", 5)
		in.counts(t, "v0", 5)
		if o.Clsact {
			out.counts(t, "v1", 0) // neither as it leaves v1 nor, by that qdisc, as it arrives there
			for at, want := range map[place]int{ingress: 1, egress: 1} {
				if n := len(stubs(t, index1(t, "v0"), at)); n != want {
					t.Errorf("%d stubs at place %d", n, at)
				}
			}
			must(t, 0, netlink.QdiscDel(&netlink.Ingress{QdiscAttrs: clsactOf(index1(t, "v1")).QdiscAttrs}))
			must(t, 0, d.Check())
			leaves(t, d, in, "v1", true)
		}
		out.counts(t, "v1", 5)

		// Another that lives is left alone.
		other = startInstance(t, o)
		must(t, 0, d.Check())
		leaves(t, d, in, "v0", true)
		must(t, 0, d.Close())
		if n := len(stubs(t, index1(t, "v0"), egress)); o.Clsact && n != 1 {
			t.Errorf("%d stubs are another's, not 1", n)
		}
		other.stop(t)
		nothingHooked(t)
	})
}
