// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestReach(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		veth(t, "sl-a", "sl-b")
		veth(t, "sl-member", "sl-other")
		must(t, 0, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs("sl-bridge")}))
		must(t, 0, netlink.LinkSetMaster(link1(t, "sl-member"), link1(t, "sl-bridge")))
		must(t, 0, netlink.AddrAdd(link1(t, "sl-a"), must1(t, func() (*netlink.Addr, error) { return netlink.ParseAddr("198.18.0.1/24") })))
		must(t, 0, netlink.AddrAdd(link1(t, "sl-a"), must1(t, func() (*netlink.Addr, error) { return netlink.ParseAddr("fd00::1/64 nodad") })))
		must(t, 0, netlink.RouteAdd(&netlink.Route{LinkIndex: index1(t, "sl-member"), Dst: must1(t, func() (*netlink.Addr, error) { return netlink.ParseAddr("198.18.9.0/24") }).IPNet}))
		r := must1(t, NewReach)
		defer r.Close()
		for _, c := range []struct{ to, device, why string }{
			{"198.18.0.2", "sl-a", ""},
			{"::ffff:198.18.0.2", "sl-a", ""},
			{"fd00::2", "sl-a", ""},
			{"fe80::1%sl-a", "sl-a", ""},
			{"fe80::1%sl-none", "", "device sl-none"},
			{"198.18.0.1", "lo", "it is on this host"},
			{"127.0.0.5", "lo", "it is on this host"},
			{"::1", "lo", "it is on this host"},
			{"198.18.9.2", "sl-member", "device sl-member leads to it: a member of sl-bridge"},
			{"198.19.0.1", "", "no route leads to it"},
		} {
			device, why := r.To(netip.MustParseAddr(c.to))
			if device != c.device || (why == "") != (c.why == "") || !strings.Contains(why, c.why) {
				t.Errorf("%s: %q, %q", c.to, device, why)
			}
		}
	})
}
