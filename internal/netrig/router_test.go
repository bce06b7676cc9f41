// SPDX-License-Identifier: Apache-2.0

package netrig

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/internal/nstest"
)

// Behind routers, hosts reach the balancer and it them; the path's MTU is learnt.
func TestRouters(t *testing.T) {
	for _, o := range []Options{{ClientRouter: true}, {BackendRouter: true}, {ClientRouter: true, BackendRouter: true}, {OneArm: true, ClientRouter: true, BackendRouter: true}} {
		t.Run(fmt.Sprintf("%+v", o), func(t *testing.T) {
			r := New(t, o)
			for _, front := range both(r.Balancer, 0) {
				exchange(t, dial(t, r.Client, netip.Addr{}, accepting(t, r.Balancer, front, echo)), 100_000)
			}
			for _, at := range both(r.Backend, 3) {
				exchange(t, dial(t, r.Balancer, netip.Addr{}, accepting(t, r.Backend, at, echo)), 100_000)
			}
			if r.BackendRouter == nil {
				return
			}
			// The backend says that it takes more than its link does.
			r.BackendRouter.MTU(t, r.BackendRouter.Devices[1], 1300)
			for _, at := range both(r.Backend, 2) {
				c := dial(t, r.Balancer, netip.Addr{}, accepting(t, r.Backend, at, echo))
				exchange(t, c, 100_000)
				if n := option(t, c, unix.TCP_MAXSEG); n > 1300-40 {
					t.Errorf("segments of %d bytes", n)
				}
			}
		})
	}
}

func option(t *testing.T, c *net.TCPConn, name int) (n int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) { n, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, name) })
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestSubnetMTU(t *testing.T) {
	everyNet(t, func(t *testing.T, r *Rig) {
		r.SubnetMTU(t, r.Client, 9000)
		c := dial(t, r.Client, netip.Addr{}, accepting(t, r.Balancer, r.Front(false), echo))
		exchange(t, c, 1<<20)
		if n := option(t, c, unix.TCP_MAXSEG); n < 8900 {
			t.Errorf("segments of %d bytes", n)
		}
	})
}

func TestMetrics(t *testing.T) {
	r := New(t, Options{BackendRouter: true})
	addrs := []netip.AddrPort{accepting(t, r.Backend, r.Backend.V4[0], echo), accepting(t, r.Backend, r.Backend.V6[0], echo)}
	segments := func() (all []int) {
		for _, a := range addrs {
			all = append(all, option(t, dial(t, r.Balancer, netip.Addr{}, a), unix.TCP_MAXSEG))
		}
		return all
	}
	before := segments()
	t.Run("while", func(t *testing.T) {
		r.Backend.Metrics(t, func(way *netlink.Route) { way.AdvMSS = 1000 })
		if got := segments(); !slices.Equal(got, []int{1000 - 12, 1000 - 12}) {
			t.Errorf("segments of %d bytes", got)
		}
	})
	if got := segments(); !slices.Equal(got, before) {
		t.Errorf("segments of %d bytes afterwards, %d before", got, before)
	}
}

func TestJoin(t *testing.T) {
	fds := nstest.OpenFDs()
	r := New(t, Options{})
	t.Run("joined", func(t *testing.T) {
		w, x := r.Join(t, r.Backend), r.Join(t, r.Client)
		t.Run("both ways", func(t *testing.T) {
			for _, a := range []netip.Addr{w.There4, w.There6} {
				exchange(t, dial(t, r.Balancer, netip.Addr{}, accepting(t, r.Backend, a, echo)), 100_000)
			}
			for _, a := range []netip.Addr{x.Here4, x.Here6} {
				exchange(t, dial(t, r.Client, netip.Addr{}, accepting(t, r.Balancer, a, echo)), 100_000)
			}
		})
		// The backend's first address by the second cable.
		to := netip.PrefixFrom(r.Backend.V4[0], 32)
		way := Route{To: to, Device: w.Here, Gateway: w.There4, Source: w.Here4, Metric: 5}
		if err := r.Balancer.AddRoute(way); err != nil {
			t.Fatal(err)
		}
		addr := accepting(t, r.Backend, to.Addr(), echo)
		c := dial(t, r.Balancer, netip.Addr{}, addr)
		exchange(t, c, 1000)
		if from := c.LocalAddr().(*net.TCPAddr).AddrPort().Addr(); from != w.Here4 {
			t.Errorf("from %s, not %s", from, w.Here4)
		}
		c.Close()
		if err := r.Balancer.DelRoute(way); err != nil {
			t.Error(err)
		}
		if err := r.Balancer.AddRoute(way); err != nil {
			t.Fatal(err)
		}
		up, err := r.Balancer.Down(w.Here)
		if err != nil {
			t.Fatal(err)
		}
		if err := up(); err != nil {
			t.Fatal(err)
		}
		for _, a := range []netip.Addr{w.There4, w.There6} {
			exchange(t, dial(t, r.Balancer, netip.Addr{}, accepting(t, r.Backend, a, echo)), 1000)
		}
		if err := r.Balancer.DelRoute(way); err != nil {
			t.Error("a route doesn't come back: ", err)
		}
		if len(r.Balancer.V4) != 2 || len(r.Backend.V4) != addresses {
			t.Error("the cable's addresses are among the host's own")
		}
	})
	if now := nstest.OpenFDs(); now > fds+20 {
		t.Errorf("%d descriptors, %d before", now, fds)
	}
}
