// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Devices of each kind, as this kernel makes and describes them; one that it
// doesn't have says nothing here, and TestRefusedDevices judges all.
func TestKindsOfDevices(t *testing.T) {
	everyWay(t, func(t *testing.T, o DevicesOptions) {
		veth(t, "v0", "v1")
		veth(t, "w0", "w1")
		c := newFrameCounter(t, tcUnspec)
		d := startDevices(t, c, o)
		on := func(name, parent string) netlink.LinkAttrs {
			a := attrs(name)
			a.ParentIndex = index1(t, parent)
			return a
		}
		here := 0
		for _, k := range []struct {
			link    netlink.Link
			refused string
		}{
			{&netlink.Bridge{LinkAttrs: attrs("bridge0")}, ""},
			{&netlink.Dummy{LinkAttrs: attrs("dummy1")}, ""},
			{netlink.NewLinkBond(attrs("bond1")), ""},
			{&netlink.Vlan{LinkAttrs: on("vlan0", "v0"), VlanId: 7}, ""},
			{&netlink.Macvlan{LinkAttrs: on("macvlan0", "v0"), Mode: netlink.MACVLAN_MODE_BRIDGE}, ""},
			{&netlink.IPVlan{LinkAttrs: on("ipvlan0", "w0"), Mode: netlink.IPVLAN_MODE_L2}, ""},
			{&netlink.IPVlan{LinkAttrs: on("ipvlan1", "w1"), Mode: netlink.IPVLAN_MODE_L3}, "mode l3"},
			{&netlink.Vrf{LinkAttrs: attrs("vrf0"), Table: 100}, "a VRF"},
			{&netlink.Tuntap{LinkAttrs: attrs("tun0"), Mode: netlink.TUNTAP_MODE_TUN}, "not Ethernet"},
			{&netlink.Tuntap{LinkAttrs: attrs("tap0"), Mode: netlink.TUNTAP_MODE_TAP}, "not proven"},
			{&netlink.Wireguard{LinkAttrs: attrs("wg0")}, "not Ethernet"},
			{&netlink.Vxlan{LinkAttrs: attrs("vxlan0"), VxlanId: 7, Port: 4789}, "not proven"},
			{&netlink.Ifb{LinkAttrs: attrs("ifb7")}, "not proven"},
		} {
			name := k.link.Attrs().Name
			err := netlink.LinkAdd(k.link)
			if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
				t.Logf("%s: %v", name, err)
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			here++
			hooked(t, d, c, name, k.refused == "")
			if why := deviceNow(d, name).Why; !strings.Contains(why, k.refused) {
				t.Errorf("%s: %q, not %q", name, why, k.refused)
			}
			if name == "vrf0" {
				must(t, 0, netlink.LinkSetMaster(link1(t, "dummy1"), link1(t, "vrf0")))
				hooked(t, d, c, "dummy1", false)
				if why := deviceNow(d, "dummy1").Why; !strings.Contains(why, "in VRF vrf0") {
					t.Error(why)
				}
			}
		}
		if here < 1 {
			t.Error("not even a bridge")
		}
		must(t, 0, d.Close())
		nothingHooked(t)
	})
}
