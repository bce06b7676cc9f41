// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"

	"github.com/vishvananda/netlink"
)

// linkFacts is what decides whether the forward program runs on a device.
type linkFacts struct {
	index, master int
	below         int // the device of this namespace that its packets arrive by before it; 0: none
	name, kind    string
	link          string // the link layer: ether, loopback, none, ...
	layer3        bool   // ipvlan in a mode without addresses of the link layer
	groList       bool
	trouble       string // what couldn't be found out
}

// factsOf reads a link as rtnetlink describes it, and the device's features.
func factsOf(l netlink.Link, f *offloads) linkFacts {
	a := l.Attrs()
	facts := linkFacts{index: a.Index, master: a.MasterIndex, name: a.Name, kind: l.Type(), link: a.EncapType}
	switch l := l.(type) {
	case *netlink.IPVlan:
		facts.layer3 = l.Mode != netlink.IPVLAN_MODE_L2
		facts.below = parentHere(a)
	case *netlink.Vlan, *netlink.Macvlan:
		facts.below = parentHere(a)
	}
	on, err := f.hasGROList(a.Name)
	if err != nil {
		facts.trouble = err.Error()
	}
	facts.groList = on
	return facts
}

// parentHere is the index of the device below, if that is in this namespace.
func parentHere(a *netlink.LinkAttrs) int {
	if a.NetNsID >= 0 {
		return 0
	}
	return a.ParentIndex
}

// table is every device of the namespace by its index.
type table map[int]linkFacts

// provenKinds are those whose packets arrive as Ethernet frames, with the
// device that a route names. "device" is one without a kind: hardware.
var provenKinds = map[string]bool{
	"device": true, "veth": true, "bridge": true, "bond": true, "team": true,
	"vlan": true, "macvlan": true, "ipvlan": true, "dummy": true,
}

// refusal says why the program doesn't run on the device; empty: it does.
// members is the table by master.
func (t table) refusal(f linkFacts, members map[int][]int) string {
	switch {
	case f.link == "loopback":
		return "loopback: local peers are not offloaded"
	case f.kind == "vrf":
		return "a VRF: the route of a packet in it is not the host's"
	case f.master != 0 && t[f.master].kind == "vrf":
		return fmt.Sprintf("in VRF %s: the route of a packet in it is not the host's", t[f.master].name)
	case f.link != "ether":
		return fmt.Sprintf("its link layer is %q, not Ethernet", f.link)
	case f.master != 0:
		return "a member of " + t.named(f.master) + ": that device is the one of its packets' route"
	case !provenKinds[f.kind]:
		return fmt.Sprintf("kind %q: not proven to take rewritten packets", f.kind)
	case f.layer3:
		return "ipvlan in mode l3 or l3s: has no addresses of the link layer"
	case f.trouble != "":
		return f.trouble
	}
	if name := t.groListBelow(f, members, 0); name != "" {
		return fmt.Sprintf("%s is on at %s (ethtool -K %[2]s %[1]s off): such packets can't be rewritten", groListFeature, name)
	}
	return ""
}

func (t table) named(index int) string {
	if f, ok := t[index]; ok {
		return f.name
	}
	return fmt.Sprintf("device %d", index)
}

// groListBelow names the device, this one or any that its packets pass
// before, that merges packets into lists: they stay so on their way up.
func (t table) groListBelow(f linkFacts, members map[int][]int, depth int) string {
	const nesting = 8 // the kernel's limit, MAX_NEST_DEV
	if f.groList {
		return f.name
	}
	if depth == nesting {
		return ""
	}
	below := members[f.index]
	if f.below != 0 {
		below = append(below[:len(below):len(below)], f.below)
	}
	for _, index := range below {
		if name := t.groListBelow(t[index], members, depth+1); name != "" {
			return name
		}
	}
	return ""
}

// members is the table by master.
func (t table) members() map[int][]int {
	m := map[int][]int{}
	for index, f := range t {
		if f.master != 0 {
			m[f.master] = append(m[f.master], index)
		}
	}
	return m
}
