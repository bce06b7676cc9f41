// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/internal/needs"
	"sluice/internal/netrig"
)

// peers are hosts that have or haven't what most have.
type peers struct {
	name    string
	v4      bool // not on IPv6, whose paths take 1280 bytes
	does    netrig.Impairment
	net     netrig.Options
	set     func(t *testing.T, h *hosts)
	sees    func(client, backend facts) bool // what their sockets say of it
	first   string                           // why the first session isn't forwarded
	all     []string                         // and some of the later ones
	workers int                              // sessions at a time, if few
}

// facts are what a socket says of its connection.
type facts struct {
	options         byte // TCPI_OPT_*
	sends, receives byte // scales of its peer's windows, and of its own; with hasScales
	segment         int  // what it sends, without timestamps
	congestion      string
}

const (
	hasSACK   = 2 // as hasTimestamps
	hasScales = 4
)

func factsOf(t *testing.T, c *net.TCPConn) (f facts) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) {
		if f.congestion, err = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION); err != nil {
			return
		}
		var ti unix.TCPInfo
		tcpInfo(int32(fd), &ti)
		scales := (*[8]byte)(unsafe.Pointer(&ti))[6] // two bit-fields, for which Go has no name
		f.options, f.sends, f.receives = ti.Options, scales&15, scales>>4
		f.segment, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG)
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// has says whether a connection has exactly these of the options that peers may lack.
func has(f facts, options byte) bool {
	return f.options&(hasTimestamps|hasSACK|hasScales) == options
}

// lacking are peers that lack something by a sysctl of one's host.
func lacking(name, sysctl string, client, backend bool, sees func(client, backend facts) bool, first string) peers {
	return peers{name: name, does: netrig.Impairment{Loss: 1}, first: first, sees: sees, set: func(t *testing.T, h *hosts) {
		if client {
			h.Client.Sysctl(t, sysctl, "0")
		}
		if backend {
			h.Backend.Sysctl(t, sysctl, "0")
		}
	}}
}

// scaling has a host's windows be of this unit; -1: its connections have none.
func scaling(t *testing.T, h *netrig.Host, scale int) {
	if scale < 0 {
		h.Sysctl(t, "ipv4/tcp_window_scaling", "0")
		return
	}
	h.Sysctl(t, "ipv4/tcp_rmem", fmt.Sprint("4096 131072 ", 1<<30))
	h.Metrics(t, func(way *netlink.Route) { way.Window = 1 << (15 + scale) })
}

// scaled are peers with windows of these units.
func scaled(client, backend int) peers {
	sees := func(f facts, scale int) bool {
		if scale < 0 {
			return f.options&hasScales == 0
		}
		return f.options&hasScales != 0 && int(f.receives) == scale
	}
	return peers{
		name: fmt.Sprintf("scales of windows %d, %d", client, backend),
		set: func(t *testing.T, h *hosts) {
			scaling(t, h.Client, client)
			scaling(t, h.Backend, backend)
		},
		sees: func(c, b facts) bool { return sees(c, client) && sees(b, backend) },
	}
}

// sized are peers whose links take so much.
func sized(client, backend int, first string) peers {
	of := func(t *testing.T, h *hosts, host *netrig.Host, mtu int) {
		if mtu > 1500 {
			h.SubnetMTU(t, host, mtu)
		} else {
			host.MTU(t, host.Devices[0], mtu)
		}
	}
	return peers{
		name: fmt.Sprintf("MTU %d, %d", client, backend), v4: min(client, backend) < 1280, first: first,
		set: func(t *testing.T, h *hosts) {
			of(t, h, h.Client, client)
			of(t, h, h.Backend, backend)
		},
		sees: func(c, b facts) bool {
			fills := func(f facts, mtu int) bool { return f.segment <= mtu-40 && f.segment > mtu-80 }
			// To be forwarded, the backend's is made like the client's where that takes less.
			return fills(c, client) && (fills(b, backend) || fills(b, min(client, backend)))
		},
	}
}

// featured are hosts whose devices have features, or haven't.
func featured(name string, set func(t *testing.T, h *hosts)) peers {
	return peers{name: name, set: set}
}

// features switches those of all of a rig's hosts.
func features(t *testing.T, on bool, f []netrig.Feature, all ...*netrig.Host) {
	for _, h := range all {
		for _, d := range h.Devices {
			h.Features(t, d, on, f...)
		}
	}
}

// controlled are peers with this congestion control.
func controlled(name string) peers {
	return peers{
		name: name, does: netrig.Impairment{Loss: 1},
		set: func(t *testing.T, h *hosts) {
			for _, host := range []*netrig.Host{h.Client, h.Backend} {
				host.Metrics(t, func(way *netlink.Route) { way.Congctl = name })
			}
		},
		sees: func(c, b facts) bool { return c.congestion == name && b.congestion == name },
	}
}

// behindRouters are peers with a link of this MTU on their way to the balancer, which
// each of them believes to take 1500 bytes.
func behindRouters(mtu int) peers {
	return peers{
		name: fmt.Sprintf("behind routers and links of %d bytes", mtu), v4: mtu < 1280,
		net: netrig.Options{ClientRouter: true, BackendRouter: true},
		set: func(t *testing.T, h *hosts) { narrow(t, h, h.Client, mtu); narrow(t, h, h.Backend, mtu) },
		// A socket of ours may have learnt the path's MTU before its session is forwarded.
		all: []string{"mss"}, workers: 4,
	}
}

func unlike() []peers {
	const most = hasTimestamps | hasSACK | hasScales
	offloads := []netrig.Feature{netrig.TSO, netrig.GSO, netrig.TxChecksum}
	all := []peers{
		lacking("a client without SACK", "ipv4/tcp_sack", true, false, func(c, b facts) bool {
			return has(c, most&^hasSACK) && has(b, most)
		}, ""),
		lacking("a backend without SACK", "ipv4/tcp_sack", false, true, func(c, b facts) bool {
			return has(c, most) && has(b, most&^hasSACK)
		}, ""),
		lacking("no SACK", "ipv4/tcp_sack", true, true, func(c, b facts) bool {
			return has(c, most&^hasSACK) && has(b, most&^hasSACK)
		}, ""),
		// The backend is dialled without them, too.
		lacking("a client without timestamps", "ipv4/tcp_timestamps", true, false, func(c, b facts) bool {
			return has(c, most&^hasTimestamps)
		}, ""),
		lacking("a backend without timestamps", "ipv4/tcp_timestamps", false, true, func(c, b facts) bool {
			return has(c, most) && has(b, most&^hasTimestamps)
		}, "timestamps"),
		lacking("no timestamps", "ipv4/tcp_timestamps", true, true, func(c, b facts) bool {
			return has(c, most&^hasTimestamps) && has(b, most&^hasTimestamps)
		}, ""),
		scaled(-1, 14), scaled(14, -1), scaled(0, 14), scaled(14, 0), scaled(1, 11), scaled(8, 2),
		{
			name: "clients and backends that ask for ECN",
			set: func(t *testing.T, h *hosts) {
				h.Client.Sysctl(t, "ipv4/tcp_ecn", "1")
				h.Backend.Sysctl(t, "ipv4/tcp_ecn", "1")
			},
		},
		sized(9000, 1500, "mss"), sized(1500, 9000, ""), sized(1280, 1500, ""), sized(1500, 1280, "mss"),
		sized(576, 1500, ""), sized(1280, 576, "mss"),
		featured("no offloads", func(t *testing.T, h *hosts) {
			features(t, false, offloads, h.Client, h.Balancer, h.Backend)
		}),
		featured("no offloads at the balancer, GRO", func(t *testing.T, h *hosts) {
			features(t, false, offloads, h.Balancer)
			features(t, true, []netrig.Feature{netrig.GRO}, h.Client, h.Balancer, h.Backend)
		}),
		featured("no offloads at client and backend, GRO at the balancer", func(t *testing.T, h *hosts) {
			features(t, false, offloads, h.Client, h.Backend)
			features(t, true, []netrig.Feature{netrig.GRO}, h.Balancer)
		}),
		featured("no checksums of devices at the client, no TSO at the backend", func(t *testing.T, h *hosts) {
			features(t, false, []netrig.Feature{netrig.TxChecksum}, h.Client)
			features(t, false, []netrig.Feature{netrig.TSO}, h.Backend)
		}),
		behindRouters(1280), behindRouters(576),
	}
	b, _ := os.ReadFile("/proc/sys/net/ipv4/tcp_available_congestion_control")
	for _, name := range []string{"reno", "cubic", "bbr"} {
		if slices.Contains(strings.Fields(string(b)), name) {
			all = append(all, controlled(name))
		}
	}
	return all
}

// TestTortureOfPeers: the torture with clients and backends that are unlike each other,
// on IPv4 and IPv6 in turn. Every session that talks a little is forwarded, but for those
// that a row names. SLUICE_TORTURE=20000 is the long form, on both.
func TestTortureOfPeers(t *testing.T) {
	t.Parallel()
	long := os.Getenv("SLUICE_TORTURE") != ""
	for _, path := range []string{"relay", "splice", "offload"} {
		sessions := 12
		if path == "offload" {
			sessions = 40
		}
		for i, p := range unlike() {
			for _, v6 := range []bool{false, true} {
				if v6 && p.v4 || !p.v4 && !long && v6 != (i%2 == 1) {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/IPv6 %t", path, p.name, v6), func(t *testing.T) {
					t.Parallel()
					switch path {
					case "splice":
						needSplice(t)
					case "offload":
						needs.Offload(t)
					}
					p.torture(t, path, v6, tortureSessions(sessions))
				})
			}
		}
	}
}

func (p peers) torture(t *testing.T, path string, v6 bool, sessions int) {
	h := elsewhere(t, p.net, v6)
	p.set(t, h)
	h.Impair(t, p.does)
	// Resets, which may come before a session is worth it, are TestTortureOnHosts's.
	o := ordeal{sessions: sessions, most: 256 << 10, endings: clientResets, workers: p.workers, all: p.all}
	if o.all == nil {
		o.all = []string{}
	}
	o.first = func(client, backend *net.TCPConn, fell string) {
		switch {
		case client == nil && path == "offload" && fell != p.first:
			t.Errorf("the first session fell for %q, not %q", fell, p.first)
		case client != nil && p.sees != nil:
			if c, b := factsOf(t, client), factsOf(t, backend); !p.sees(c, b) {
				t.Errorf("the client's connection is %+v, the backend's %+v", c, b)
			}
		}
	}
	o.run(t, path)
	for _, host := range []*netrig.Host{h.Client, h.Backend} {
		if n := host.Count(t, "InCsumErrors"); n != 0 {
			t.Error(strconv.FormatUint(n, 10), " segments came with a wrong checksum")
		}
	}
}
