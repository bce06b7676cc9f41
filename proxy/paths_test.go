// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/internal/needs"
	"sluice/internal/netrig"
	"sluice/loader"
)

// onPaths runs f once a datapath and family, between hosts.
func onPaths(t *testing.T, o netrig.Options, f func(t *testing.T, path string, h *hosts)) {
	t.Parallel()
	for _, path := range []string{"relay", "splice", "offload"} {
		for _, v6 := range []bool{false, true} {
			if v6 && os.Getenv("SLUICE_TORTURE") == "" {
				// On a busy machine the rig's hosts sometimes don't find each other by IPv6
				// once cables come and go, whatever the datapath: in the long form only.
				continue
			}
			t.Run(fmt.Sprintf("%s/IPv6 %t", path, v6), func(t *testing.T) {
				t.Parallel()
				switch path {
				case "splice":
					needSplice(t)
				case "offload":
					needs.Offload(t)
				}
				f(t, path, elsewhere(t, o, v6))
			})
		}
	}
}

// alone is an address as a prefix.
func alone(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// ends are a way's addresses, of the family that the test runs on.
func (h *hosts) ends(w *netrig.Way) (here, there netip.Addr) {
	if h.v6 {
		return w.Here6, w.There6
	}
	return w.Here4, w.There4
}

// must ends the test with the first error there is.
func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestOneWayEach: packets of a leg come by another device than those to it go. Such a
// session isn't forwarded, and no byte of it is lost.
func TestOneWayEach(t *testing.T) {
	onPaths(t, netrig.Options{}, func(t *testing.T, path string, h *hosts) {
		for _, side := range []string{"client", "backend"} {
			t.Run(side, func(t *testing.T) {
				host, own := h.Client, h.of(h.Balancer)[0]
				if side == "backend" {
					host, own = h.Backend, h.of(h.Balancer)[1]
				}
				w := h.Join(t, host)
				here, _ := h.ends(w)
				// What the host sends goes by the further cable; it's the kernel's own to
				// answer by the other.
				way := netrig.Route{To: alone(own), Device: w.There, Gateway: here, Source: h.of(host)[0]}
				must(t, host.AddRoute(way))
				t.Cleanup(func() { must(t, host.DelRoute(way)) })
				r := newRig(t, path, []string{serve(t, echo)}, nil)
				n, fell := r.share(8)
				if want := "device 8"; path == "offload" && (n != 0 || fell != want) {
					t.Errorf("%d were forwarded; fell: %q, not %q", n, fell, want)
				}
			})
		}
	})
}

// TestWayMoves: a host's packets come by another device in the middle of a session, and
// those to it go by the one before. A forwarded session goes on.
func TestWayMoves(t *testing.T) {
	onPaths(t, netrig.Options{}, func(t *testing.T, path string, h *hosts) {
		ways := map[*netrig.Host]*netrig.Way{h.Client: h.Join(t, h.Client), h.Backend: h.Join(t, h.Backend)}
		_, f := newFlowing(t, path)
		f.goesOn()
		for i, host := range []*netrig.Host{h.Client, h.Backend} {
			here, _ := h.ends(ways[host])
			must(t, host.AddRoute(netrig.Route{To: alone(h.of(h.Balancer)[i]), Device: ways[host].There, Gateway: here}))
			f.goesOn()
		}
		f.finish()
	})
}

// rerouted has the rig's forwarded sessions follow changes of routes, as the service has.
func (r *rig) rerouted() {
	r.t.Helper()
	routes, err := loader.NewRoutes(func(x *loader.Routes) { r.engine.Reroute(x.Device) })
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if err := routes.Close(); err != nil {
			r.t.Error(err)
		}
	})
}

// service is an address that is none of a device's: the balancer's toward backends, the
// backends'. They stay when a device goes down.
func service(h *hosts, last byte) netip.Addr {
	a := h.of(h.Backend)[0].As16()
	a[15] = last
	if h.v6 {
		a[1] = 1 // fd01::
		return netip.AddrFrom16(a)
	}
	a[13] = 19 // 198.19
	return netip.AddrFrom16(a).Unmap()
}

// hold gives a host an address on its loopback device, for the test's time.
func hold(t *testing.T, host *netrig.Host, a netip.Addr) {
	t.Helper()
	do := func(change func(netlink.Link, *netlink.Addr) error) error {
		return host.Do(func() error {
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			return change(lo, &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}, Flags: unix.IFA_F_NODAD})
		})
	}
	must(t, do(netlink.AddrAdd))
	t.Cleanup(func() { must(t, do(netlink.AddrDel)) })
}

// TestTwoUplinks: of two cables to the backends one goes down while bytes flow, comes
// back, and the other goes down. Sessions go on by what is left, also where our address is
// the first cable's.
func TestTwoUplinks(t *testing.T) {
	onPaths(t, netrig.Options{}, func(t *testing.T, path string, h *hosts) {
		t.Run("addresses of no device", func(t *testing.T) { twoUplinks(t, path, h, false) })
		if h.v6 && (path != "offload" || os.Getenv("SLUICE_TORTURE") == "") {
			// An IPv6 address goes with its device, and sockets can't do without. Flows can,
			// but on a busy machine one of some ten runs had nothing arrive for a minute once
			// the device was back: not explained yet, so it is tried in the long form only.
			return
		}
		t.Run("an address of the first", func(t *testing.T) { twoUplinks(t, path, h, true) })
	})
}

func twoUplinks(t *testing.T, path string, h *hosts, ofFirst bool) {
	w := h.Join(t, h.Backend)
	here, there := h.ends(w)
	first := [2]string{h.Balancer.Devices[1], h.Backend.Devices[0]}
	ours, theirs := service(h, 1), service(h, 2)
	hold(t, h.Backend, theirs)
	var ways [2][]netrig.Route // the balancer's, the backend's
	if ofFirst {
		ours = h.of(h.Balancer)[1]
	} else {
		hold(t, h.Balancer, ours)
		ways[1] = append(ways[1], netrig.Route{To: alone(ours), Device: first[1], Gateway: h.of(h.Balancer)[1], Source: theirs, Metric: 10})
	}
	ways[0] = append(ways[0],
		netrig.Route{To: alone(theirs), Device: first[0], Gateway: h.of(h.Backend)[0], Source: ours, Metric: 10},
		netrig.Route{To: alone(theirs), Device: w.Here, Gateway: there, Source: ours, Metric: 20})
	subnet, err := ours.Prefix(64) // less than the first cable's own, as long as that has one
	if !h.v6 {
		subnet, err = ours.Prefix(24)
	}
	must(t, err)
	ways[1] = append(ways[1], netrig.Route{To: subnet, Device: w.There, Gateway: here, Source: theirs, Metric: 2000})
	for i, host := range []*netrig.Host{h.Balancer, h.Backend} {
		for _, way := range ways[i] {
			must(t, host.AddRoute(way))
			t.Cleanup(func() { _ = host.DelRoute(way) }) // some went with an address
		}
	}
	h.backendAt = theirs
	r, f := newFlowing(t, path)
	r.rerouted()
	f.goesOn()
	for _, devices := range [][2]string{first, {w.Here, w.There}} {
		ups := [2]func() error{}
		for i, host := range []*netrig.Host{h.Balancer, h.Backend} {
			up, err := host.Down(devices[i])
			must(t, err)
			ups[i] = up
		}
		f.goesOn()
		other := make(chan error)
		go func() { other <- ups[1]() }() // a cable carries once both ends are up
		must(t, ups[0](), <-other)
		f.goesOn()
	}
	f.finish()
}

// TestPathIsLost: a route, a neighbour, a link is gone for a while. Sessions wait, and
// go on when it is back.
func TestPathIsLost(t *testing.T) {
	type loss struct {
		name string
		lose func(t *testing.T, h *hosts) (restore func() error)
	}
	link := func(side int) func(t *testing.T, h *hosts) func() error {
		return func(t *testing.T, h *hosts) func() error {
			up, err := h.Balancer.Down(h.Balancer.Devices[side])
			must(t, err)
			return up
		}
	}
	losses := []loss{
		{"the route to the backend", func(t *testing.T, h *hosts) func() error {
			to, err := h.of(h.Backend)[0].Prefix(64)
			if !h.v6 {
				to, err = h.of(h.Backend)[0].Prefix(24)
			}
			must(t, err)
			way := netrig.Route{To: to, Device: h.Balancer.Devices[1], Gateway: h.of(h.BackendRouter)[0]}
			must(t, h.Balancer.DelRoute(way))
			return func() error { return h.Balancer.AddRoute(way) }
		}},
		{"the client as a neighbour", func(t *testing.T, h *hosts) func() error { return h.misplace(t, h.of(h.Client)[1], 0) }},
		{"the router as a neighbour", func(t *testing.T, h *hosts) func() error { return h.misplace(t, h.of(h.BackendRouter)[0], 1) }},
		{"the link to the client", link(0)},
		{"the link to the backend", link(1)},
	}
	onPaths(t, netrig.Options{BackendRouter: true}, func(t *testing.T, path string, h *hosts) {
		r, f := newFlowing(t, path)
		if at := f.client.LocalAddr().(*net.TCPAddr).AddrPort().Addr(); at != h.of(h.Client)[1] {
			t.Fatalf("the client is %s", at)
		}
		r.rerouted()
		f.goesOn()
		for _, l := range losses {
			restore := l.lose(t, h)
			time.Sleep(200 * time.Millisecond)
			client, backend := f.got[0].Load(), f.got[1].Load()
			time.Sleep(200 * time.Millisecond)
			if c, b := f.got[0].Load()-client, f.got[1].Load()-backend; c != 0 && b != 0 {
				t.Errorf("%s is lost, and %d and %d bytes arrive", l.name, c, b)
			}
			must(t, restore())
			f.goesOn()
		}
		f.finish()
	})
}

// misplace has the balancer take a neighbour for another one.
func (h *hosts) misplace(t *testing.T, at netip.Addr, side int) (restore func() error) {
	t.Helper()
	do := func(change func(*netlink.Neigh) error) error {
		return h.Balancer.Do(func() error {
			l, err := netlink.LinkByName(h.Balancer.Devices[side])
			if err != nil {
				return err
			}
			return change(&netlink.Neigh{
				LinkIndex: l.Attrs().Index, IP: at.AsSlice(), State: netlink.NUD_PERMANENT,
				HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 99},
			})
		})
	}
	must(t, do(netlink.NeighSet))
	return func() error { return do(netlink.NeighDel) }
}
