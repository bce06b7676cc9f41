// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"

	"sluice/internal/needs"
	"sluice/internal/netrig"
)

// narrow has the link between a host and its router take no more than mtu bytes. What
// the host says of itself stays as it was, so that senders find it out by what the
// router answers.
func narrow(t *testing.T, h *hosts, host *netrig.Host, mtu int) {
	t.Helper()
	host.Metrics(t, func(way *netlink.Route) {
		if way.Dst.IP.To4() != nil {
			way.AdvMSS = 1460
		} else {
			way.AdvMSS = 1440
		}
	})
	router := h.ClientRouter
	if host == h.Backend {
		router = h.BackendRouter
	}
	for _, on := range []*netrig.Host{router, host} {
		on.MTU(t, on.Devices[len(on.Devices)-1], mtu)
	}
}

// TestPathMTU: a link behind the balancer, or before it, takes less than its neighbours.
// Its router's errors reach who sent what didn't fit, through the balancer, and every byte
// arrives, also where the link becomes so in the middle of a session.
func TestPathMTU(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"relay", "splice", "offload"} {
		for _, v6 := range []bool{false, true} {
			for _, side := range []string{"client", "backend"} {
				for _, late := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s/IPv6 %t/before the %s, late %t", path, v6, side, late), func(t *testing.T) {
						t.Parallel()
						switch path {
						case "splice":
							needSplice(t)
						case "offload":
							needs.Offload(t)
						}
						pathMTU(t, path, v6, side, late)
					})
				}
			}
		}
	}
}

func pathMTU(t *testing.T, path string, v6 bool, side string, late bool) {
	mtu := 576
	if v6 {
		mtu = 1280
	}
	h := elsewhere(t, netrig.Options{ClientRouter: true, BackendRouter: true}, v6)
	host := h.Client
	if side == "backend" {
		host = h.Backend
	}
	if !late {
		narrow(t, h, host, mtu)
	}
	r, f := newFlowing(t, path)
	f.goesOn()
	if late {
		narrow(t, h, host, mtu)
		f.goesOn()
	}
	client, backend := factsOf(t, f.client), factsOf(t, f.backend)
	f.finish()
	// On lower datapaths a socket of ours is the sender that had to learn it.
	sender := backend
	if side == "backend" {
		sender = client
	}
	if path == "offload" && (sender.segment > mtu-40 || r.outcome("icmp") == 0) {
		t.Errorf("the sender's segments have %d bytes, and %d errors were forwarded", sender.segment, r.outcome("icmp"))
	}
}
