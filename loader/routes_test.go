// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func addAddr(t *testing.T, device, prefix string) {
	t.Helper()
	a, err := netlink.ParseAddr(prefix)
	must(t, 0, err)
	a.Flags = unix.IFA_F_NODAD
	must(t, 0, netlink.AddrAdd(link1(t, device), a))
}

// Each end of a pair has its addresses, so packets of either go to itself: for
// routes only what leads there counts.
func TestRoutes(t *testing.T) {
	alone(t, func(t *testing.T) {
		veth(t, "v0", "v1")
		veth(t, "w0", "w1")
		var calls atomic.Int32
		r, err := NewRoutes(func(*Routes) { calls.Add(1) })
		must(t, 0, err)
		defer r.Close()
		addAddr(t, "v0", "198.18.0.1/24")
		addAddr(t, "v0", "fd00:18::1/64")
		addAddr(t, "w0", "198.18.1.1/24")
		addAddr(t, "w0", "fe80::5/64")
		lo, v0, w0 := 1, index1(t, "v0"), index1(t, "w0")
		ask := func(dst, src string, want int, wantErr error) {
			t.Helper()
			got, err := r.Device(netip.MustParseAddr(dst), netip.MustParseAddr(src))
			if got != want || !errors.Is(err, wantErr) {
				t.Errorf("from %s to %s: device %d, not %d (%v)", src, dst, got, want, err)
			}
		}
		ask("198.18.0.9", "198.18.0.1", v0, nil)
		ask("::ffff:198.18.0.9", "198.18.0.1", v0, nil)
		ask("198.18.1.9", "198.18.0.1", w0, nil)
		ask("fd00:18::9", "fd00:18::1", v0, nil)
		ask("fe80::9%w0", "fe80::5", w0, nil)
		ask("198.18.0.1", "198.18.0.1", lo, nil)
		ask("198.19.0.9", "198.18.0.1", 0, unix.ENETUNREACH)
		ask("fd00:19::9", "fd00:18::1", 0, unix.ENETUNREACH)
		for _, c := range [][2]netip.Addr{
			{},
			{netip.MustParseAddr("198.18.0.9"), netip.MustParseAddr("fd00:18::1")},
			{netip.MustParseAddr("198.18.0.9"), netip.MustParseAddr("198.18.0.77")}, // not the host's
			{netip.MustParseAddr("fe80::9%none"), netip.MustParseAddr("fe80::5")},
		} {
			if got, err := r.Device(c[0], c[1]); err == nil {
				t.Errorf("from %s to %s: device %d", c[1], c[0], got)
			}
		}

		within(t, "the addresses are told of", func() bool { return calls.Load() > 0 })
		route := func(n int) *netlink.Route {
			_, to, err := net.ParseCIDR(fmt.Sprintf("198.19.%d.0/24", n))
			must(t, 0, err)
			return &netlink.Route{LinkIndex: w0, Dst: to}
		}
		quiet := calls.Load()
		const routes = 200
		for n := range routes {
			must(t, 0, netlink.RouteAdd(route(n)))
		}
		within(t, "routes are told of", func() bool { return calls.Load() > quiet })
		if n := calls.Load() - quiet; n > routes/4 {
			t.Errorf("%d calls for %d routes", n, routes)
		}
		ask("198.19.7.9", "198.18.0.1", w0, nil)
		for what, change := range map[string]func() error{
			"rule": func() error {
				rule := netlink.NewRule()
				rule.Table, rule.Priority, rule.Family = 100, 50, unix.AF_INET
				return netlink.RuleAdd(rule)
			},
			"link": func() error { return netlink.LinkSetDown(link1(t, "w1")) },
		} {
			quiet = calls.Load()
			must(t, 0, change())
			within(t, "a "+what+" is told of", func() bool { return calls.Load() > quiet })
		}
		must(t, 0, r.Close())
	})
}

func TestRoutesLeaveNothing(t *testing.T) {
	alone(t, func(t *testing.T) {
		start := func() {
			r, err := NewRoutes(func(*Routes) {})
			must(t, 0, err)
			_, _ = r.Device(netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.1"))
			must(t, 0, r.Close())
		}
		start()
		before := openFDs(t)
		for range 10 {
			start()
		}
		if after := openFDs(t); after > before {
			t.Errorf("%d descriptors, %d before", after, before)
		}
	})
}

func TestAnyPolicy(t *testing.T) {
	alone(t, func(t *testing.T) {
		ask := func(want bool) {
			t.Helper()
			if got, err := AnyPolicy(); err != nil || got != want {
				t.Errorf("%v, %v", got, err)
			}
		}
		ask(false)
		for _, dir := range []netlink.Dir{netlink.XFRM_DIR_IN, netlink.XFRM_DIR_OUT, netlink.XFRM_DIR_FWD} {
			for _, cidr := range []string{"198.18.7.0/24", "fd00:7::/64"} {
				_, to, err := net.ParseCIDR(cidr)
				must(t, 0, err)
				p := &netlink.XfrmPolicy{Src: to, Dst: to, Dir: dir}
				must(t, 0, netlink.XfrmPolicyAdd(p))
				ask(true)
				must(t, 0, netlink.XfrmPolicyDel(p))
				ask(false)
			}
		}
	})
}
