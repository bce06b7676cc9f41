// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestRefusedDevices(t *testing.T) {
	all := table{}
	for _, f := range []linkFacts{
		{index: 1, name: "lo", kind: "device", link: "loopback"},
		{index: 2, name: "eth0", kind: "device", link: "ether"},
		{index: 3, name: "eth1", kind: "device", link: "ether", master: 4},
		{index: 4, name: "bond0", kind: "bond", link: "ether"},
		{index: 5, name: "bond0.7", kind: "vlan", link: "ether", below: 4},
		{index: 6, name: "br0", kind: "bridge", link: "ether"},
		{index: 7, name: "veth0", kind: "veth", link: "ether", master: 6},
		{index: 8, name: "vrf1", kind: "vrf", link: "ether"},
		{index: 9, name: "eth2", kind: "device", link: "ether", master: 8},
		{index: 10, name: "tun0", kind: "tuntap", link: "none"},
		{index: 11, name: "tap0", kind: "tuntap", link: "ether"},
		{index: 12, name: "wg0", kind: "wireguard", link: "none"},
		{index: 13, name: "gre0", kind: "gre", link: "gre"},
		{index: 14, name: "vxlan0", kind: "vxlan", link: "ether"},
		{index: 15, name: "ipvl0", kind: "ipvlan", link: "ether", below: 2},
		{index: 16, name: "ipvl1", kind: "ipvlan", link: "ether", below: 2, layer3: true},
		{index: 17, name: "eth3", kind: "device", link: "ether", groList: true},
		{index: 18, name: "eth3.1", kind: "vlan", link: "ether", below: 17},
		{index: 19, name: "mac0", kind: "macvlan", link: "ether", below: 18},
		{index: 20, name: "br1", kind: "bridge", link: "ether"},
		{index: 21, name: "eth4", kind: "device", link: "ether", master: 20, groList: true},
		{index: 22, name: "eth5", kind: "device", link: "ether", master: 99},
		{index: 23, name: "eth6", kind: "device", link: "ether", trouble: "no such feature"},
		{index: 24, name: "a", kind: "vlan", link: "ether", below: 25},
		{index: 25, name: "b", kind: "vlan", link: "ether", below: 24},
	} {
		all[f.index] = f
	}
	for name, want := range map[string]string{
		"lo": "loopback", "eth0": "", "eth1": "member of bond0", "bond0": "", "bond0.7": "",
		"br0": "", "veth0": "member of br0", "vrf1": "a VRF", "eth2": "in VRF vrf1",
		"tun0": "not Ethernet", "tap0": `kind "tuntap"`, "wg0": "not Ethernet", "gre0": "not Ethernet",
		"vxlan0": `kind "vxlan"`, "ipvl0": "", "ipvl1": "mode l3", "eth3": "rx-gro-list is on at eth3",
		"eth3.1": "rx-gro-list is on at eth3", "mac0": "rx-gro-list is on at eth3",
		"br1": "ethtool -K eth4 rx-gro-list off", "eth4": "member of br1",
		"eth5": "member of device 99", "eth6": "no such feature", "a": "", "b": "",
	} {
		for _, f := range all {
			if f.name != name {
				continue
			}
			if got := all.refusal(f, all.members()); (want == "") != (got == "") || !strings.Contains(got, want) {
				t.Errorf("%s: %q, not %q", name, got, want)
			}
		}
	}
}

// A device below that is in another namespace has an index of that one.
func TestFactsOfLinks(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		f := must1(t, newOffloads)
		defer f.close()
		here := netlink.LinkAttrs{Index: 9, Name: "lo", ParentIndex: 3, MasterIndex: 4, NetNsID: -1, EncapType: "ether"}
		elsewhere := here
		elsewhere.NetNsID = 0
		for _, c := range []struct {
			link netlink.Link
			want linkFacts
		}{
			{&netlink.Device{LinkAttrs: here}, linkFacts{index: 9, name: "lo", master: 4, kind: "device", link: "ether"}},
			{&netlink.Veth{LinkAttrs: here}, linkFacts{index: 9, name: "lo", master: 4, kind: "veth", link: "ether"}},
			{&netlink.Vlan{LinkAttrs: here}, linkFacts{index: 9, name: "lo", master: 4, kind: "vlan", link: "ether", below: 3}},
			{&netlink.Macvlan{LinkAttrs: elsewhere}, linkFacts{index: 9, name: "lo", master: 4, kind: "macvlan", link: "ether"}},
			{&netlink.IPVlan{LinkAttrs: here}, linkFacts{index: 9, name: "lo", master: 4, kind: "ipvlan", link: "ether", below: 3}},
			{&netlink.IPVlan{LinkAttrs: here, Mode: netlink.IPVLAN_MODE_L3S}, linkFacts{index: 9, name: "lo", master: 4, kind: "ipvlan", link: "ether", below: 3, layer3: true}},
		} {
			if got := factsOf(c.link, f); got != c.want {
				t.Errorf("%+v, not %+v", got, c.want)
			}
		}
	})
}
