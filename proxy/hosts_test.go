// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/internal/netrig"
)

// hosts are where a test's clients and backends are, if not here.
type hosts struct {
	*netrig.Rig
	v6    bool
	dials atomic.Int64
	// backendAt is where backends listen, if not at the first address of their host.
	backendAt netip.Addr
	multipath bool // clients offer MPTCP
}

// grounds are the hosts of running tests by their names, so that serve and dial are
// the same calls wherever a test runs.
var grounds sync.Map

// elsewhere puts clients and backends on other hosts for the time of a test and those
// within it. Their sockets have the buffers that ours have.
func elsewhere(t testing.TB, o netrig.Options, v6 bool) *hosts {
	t.Helper()
	h := &hosts{Rig: netrig.New(t, o), v6: v6}
	for _, name := range []string{"ipv4/tcp_rmem", "ipv4/tcp_wmem"} {
		b, err := os.ReadFile("/proc/sys/net/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for _, host := range []*netrig.Host{h.Client, h.Backend} {
			host.Sysctl(t, name, strings.TrimSpace(string(b)))
		}
	}
	grounds.Store(t.Name(), h)
	t.Cleanup(func() { grounds.Delete(t.Name()) })
	return h
}

// ground is where clients and backends of the test are; nil: here, on loopback.
func ground(t testing.TB) *hosts {
	for name := t.Name(); ; {
		if h, ok := grounds.Load(name); ok {
			return h.(*hosts)
		}
		end := strings.LastIndexByte(name, '/')
		if end < 0 {
			return nil
		}
		name = name[:end]
	}
}

// of is the host's addresses of the family that the test runs on.
func (h *hosts) of(host *netrig.Host) []netip.Addr {
	if h.v6 {
		return host.V6
	}
	return host.V4
}

// sockets says what the connections of both hosts wait for: what one that hangs has
// in its way isn't seen from the balancer.
func (h *hosts) sockets() string {
	var b strings.Builder
	family := uint8(unix.AF_INET)
	if h.v6 {
		family = unix.AF_INET6
	}
	for _, host := range []*netrig.Host{h.Client, h.Backend} {
		err := host.Do(func() error {
			all, err := netlink.SocketDiagTCPInfo(family)
			for _, s := range all {
				m := s.InetDiagMsg
				if m == nil || s.TCPInfo == nil || m.State == netlink.TCP_LISTEN {
					continue
				}
				fmt.Fprintf(&b, "  %v:%d -> %v:%d state %d, timer %d in %d ms after %d, queues %d %d, %+v\n",
					m.ID.Source, m.ID.SourcePort, m.ID.Destination, m.ID.DestinationPort, m.State,
					m.Timer, m.Expires, m.Retrans, m.RQueue, m.WQueue, *s.TCPInfo)
			}
			return err
		})
		if err != nil {
			fmt.Fprintln(&b, err)
		}
		counts, err := host.Counts()
		fmt.Fprintf(&b, "  %v %v", counts, err)
		b.WriteByte('\n')
	}
	return b.String()
}

// frontAddr is where the test's front is bound.
func frontAddr(t testing.TB) netip.Addr {
	if h := ground(t); h != nil {
		return h.Front(h.v6)
	}
	return netip.MustParseAddr("127.0.0.1")
}

// clientNet is where the test's clients come from.
func clientNet(t testing.TB) netip.Prefix {
	if h := ground(t); h != nil {
		a := h.of(h.Client)[0]
		p, _ := a.Prefix(a.BitLen() - 8) // an address is a number of two digits at most
		return p
	}
	return netip.MustParsePrefix("127.0.0.0/8")
}

// backendListener is on the backends' host.
func backendListener(t testing.TB) (net.Listener, error) {
	if h := ground(t); h != nil {
		at := h.of(h.Backend)[0]
		if h.backendAt.IsValid() {
			at = h.backendAt
		}
		return h.Backend.Listen(netip.AddrPortFrom(at, 0))
	}
	var config net.ListenConfig
	config.SetMultipathTCP(false) // a listener of MPTCP resets some whose SYN-ACK was lost
	return config.Listen(t.Context(), "tcp", "127.0.0.1:0")
}

// connect dials the front from the clients' host, from one of its addresses after
// the other.
func (r *rig) connect() (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if h := ground(r.t); h != nil {
		all := h.of(h.Client)
		from := all[int(h.dials.Add(1))%len(all)]
		if h.multipath {
			return dialMultipath(ctx, h.Client, from, r.front.Addr())
		}
		return h.Client.Dial(ctx, from, r.front.Addr())
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", r.front.Addr().String())
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}
