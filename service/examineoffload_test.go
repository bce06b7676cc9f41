// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"sluice/loader"
)

// freeFront is an address that clients on other hosts could reach.
func freeFront(t *testing.T) string {
	return "0.0.0.0:" + strings.TrimPrefix(freeAddr(t), "127.0.0.1:")
}

// net60 makes a device that leads to 198.18.60.0/24 and fd00:60::/64.
func net60(t *testing.T) {
	t.Helper()
	a := netlink.NewLinkAttrs()
	a.Name = "sl-examine"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: a, PeerName: "sl-examined"}); err != nil {
		t.Fatalf("%v: run as root", err)
	}
	l, err := netlink.LinkByName(a.Name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(l) })
	for _, text := range []string{"198.18.60.1/24", "fd00:60::1/64 nodad"} {
		addr, err := netlink.ParseAddr(text)
		if err == nil {
			err = netlink.AddrAdd(l, addr)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := netlink.LinkSetUp(l); err != nil {
		t.Fatal(err)
	}
}

// TestOffloadExamined: each backend of a listener that may offload has its line, with
// the device or the reason.
func TestOffloadExamined(t *testing.T) {
	net60(t)
	answers := lookup(map[string][]string{
		"far.test": {"198.18.60.2", "198.18.60.3"}, "mixed.test": {"198.18.60.2", "127.0.0.1"}, "here.test": {"127.0.0.1", "198.18.60.1"},
	})
	front, both := freeFront(t), "[::]:"+strings.TrimPrefix(freeAddr(t), "127.0.0.1:")
	for _, c := range []struct {
		listen, backend string
		ok              bool
		why             string
	}{
		{front, "198.18.60.2:80", true, "by sl-examine"},
		{front, "198.18.60.2", true, "by sl-examine"},
		{both, "[fd00:60::2]:80", true, "by sl-examine"},
		{front, "[fd00:60::2]:80", false, "its clients come by the other IP version"},
		{front, "198.18.60.1:80", false, "it is on this host: its packets pass no device"},
		{front, "127.0.0.1:80", false, "it is on this host: its packets pass no device"},
		{front, "198.19.60.1:80", false, "no route leads to it: network is unreachable"},
		{front, "unix:/run/b.sock", false, "it is a unix socket, whose bytes are in no packets"},
		{front, "far.test:80", true, "by sl-examine"},
		{front, "mixed.test:80", true, "by sl-examine; but not at 127.0.0.1: it is on this host: its packets pass no device"},
		{front, "here.test:80", false, "127.0.0.1: it is on this host: its packets pass no device; 198.18.60.1: it is on this host: its packets pass no device"},
		{front, "none.test:80", false, "unknown: its name doesn't resolve"},
	} {
		t.Run(c.listen+" "+c.backend, func(t *testing.T) {
			found, _ := examine(t, two(c.listen, c.backend), answers)
			if f, told := found["offload to pool p, backend "+c.backend]; !told || f.OK != c.ok || f.Why != c.why {
				t.Errorf("%v, %+v", told, f)
			}
		})
	}
}

// TestOffloadNotExamined: what the file doesn't let offload has no line, and a policy of
// IPsec is told.
func TestOffloadNotExamined(t *testing.T) {
	net60(t)
	const line = "offload to pool p, backend 198.18.60.2:80"
	pool := "pools:\n" + poolYAML("p", "", "198.18.60.2:80")
	if found, _ := examine(t, two(freeAddr(t), "198.18.60.2:80"), nil); found[line] != (loader.Finding{}) {
		t.Errorf("a listener that only clients of this host reach: %+v", found[line])
	}
	for _, text := range []string{pool, "forward: {max_flows: 0}\n" + pool} {
		found, _ := examine(t, text+"listeners:\n"+listenerYAML("l", freeFront(t), "p"), nil)
		if _, told := found[line]; told == strings.HasPrefix(text, "forward") {
			t.Errorf("%s: told %t", text, told)
		}
	}
	for _, option := range []string{"datapath: relay", "datapath: splice", "upload_rate: 1MiB", "download_rate: 1MiB"} {
		found, _ := examine(t, fmt.Sprintf("%slisteners:\n  - {name: l, listen: %q, pool: p, %s}\n", pool, freeAddr(t), option), nil)
		if f, told := found[line]; told {
			t.Errorf("%s: %+v", option, f)
		}
	}
	if found, _ := examine(t, pool+"listeners:\n"+listenerYAML("l", "unix:"+t.TempDir()+"/front", "p"), nil); len(found) != 1 {
		t.Errorf("a listener on a unix socket: %+v", found)
	}
	_, dst, err := net.ParseCIDR("198.18.61.0/24")
	if err != nil {
		t.Fatal(err)
	}
	policy := &netlink.XfrmPolicy{Src: dst, Dst: dst, Dir: netlink.XFRM_DIR_OUT, Action: netlink.XFRM_POLICY_ALLOW}
	if err := netlink.XfrmPolicyAdd(policy); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.XfrmPolicyDel(policy) })
	found, _ := examine(t, two(freeFront(t), "198.18.60.2:80"), nil)
	if f := found[line]; !f.OK || !strings.HasPrefix(f.Why, "by sl-examine; not what a policy of IPsec") {
		t.Errorf("%+v", f)
	}
}
