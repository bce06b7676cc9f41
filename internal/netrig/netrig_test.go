// SPDX-License-Identifier: Apache-2.0

package netrig

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"sluice/internal/nstest"
)

// everyNet runs f on each kind of rig.
func everyNet(t *testing.T, f func(t *testing.T, r *Rig)) {
	for _, o := range []Options{{}, {OneArm: true}} {
		t.Run(fmt.Sprintf("%+v", o), func(t *testing.T) { f(t, New(t, o)) })
	}
}

func both(h *Host, i int) []netip.Addr { return []netip.Addr{h.V4[i], h.V6[i]} }

// accepting listens at a host's address and gives connections to serve.
func accepting(t *testing.T, h *Host, at netip.Addr, serve func(net.Conn)) netip.AddrPort {
	t.Helper()
	l, err := h.Listen(netip.AddrPortFrom(at, 0))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func echo(c net.Conn) {
	c.SetDeadline(time.Now().Add(time.Minute))
	io.Copy(struct{ io.Writer }{c}, c)
}

func dial(t *testing.T, h *Host, from netip.Addr, to netip.AddrPort) *net.TCPConn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, err := h.Dial(ctx, from, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	return c
}

// exchange sends n bytes to who returns them.
func exchange(t *testing.T, c *net.TCPConn, n int) {
	t.Helper()
	sent := make([]byte, n)
	var seed [32]byte
	rand.NewChaCha8(seed).Read(sent)
	go c.Write(sent)
	got := make([]byte, n)
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(sent, got) {
		t.Fatalf("%d bytes: %v, equal: %t", n, err, bytes.Equal(sent, got))
	}
}

func TestHostsReachEachOther(t *testing.T) {
	everyNet(t, func(t *testing.T, r *Rig) {
		for i, front := range append(both(r.Balancer, 0), both(r.Balancer, len(r.Balancer.V4)-1)...) {
			h := r.Client
			if i >= 2 {
				h = r.Backend
			}
			addr := accepting(t, r.Balancer, front, echo)
			for k := range h.V4 {
				from := both(h, k)[i%2]
				c := dial(t, h, from, addr)
				exchange(t, c, 1000)
				if got := c.LocalAddr().(*net.TCPAddr).AddrPort().Addr(); got != from {
					t.Errorf("from %s, not %s", got, from)
				}
				c.Close()
			}
		}
		for _, at := range both(r.Backend, 3) {
			exchange(t, dial(t, r.Balancer, netip.Addr{}, accepting(t, r.Backend, at, echo)), 1<<20)
		}
	})
}

// The balancer is the only way between client and backend where it has two arms.
func TestClientAndBackendAreApart(t *testing.T) {
	everyNet(t, func(t *testing.T, r *Rig) {
		addr := accepting(t, r.Backend, r.Backend.V4[0], echo)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		c, err := r.Client.Dial(ctx, netip.Addr{}, addr)
		if err == nil {
			c.Close()
		}
		if oneNet := len(r.Balancer.Devices) == 1; (err == nil) != oneNet {
			t.Errorf("one net: %t, dialling: %v", oneNet, err)
		}
	})
}

func TestNothingIsLeft(t *testing.T) {
	links := func() (names []string) {
		list, err := netlink.LinkList()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range list {
			names = append(names, l.Attrs().Name)
		}
		return names
	}
	before, fds := links(), nstest.OpenFDs()
	for _, o := range []Options{{}, {OneArm: true}, {}} {
		r, err := build(o)
		if err != nil {
			t.Fatal(err)
		}
		if len(links()) == len(before) {
			t.Error("no device was made")
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if now := links(); !slices.Equal(now, before) {
			t.Errorf("devices %v, not %v", now, before)
		}
	}
	if now := nstest.OpenFDs(); now > fds+2 { // the runtime's own
		t.Errorf("%d descriptors, %d before", now, fds)
	}
}

// A rig that can't be built leaves nothing: here for names that are all taken.
func TestHalfBuilt(t *testing.T) {
	for n := 2; n <= subnets; n++ {
		l := &netlink.Bridge{LinkAttrs: attrs(fmt.Sprintf("net%d", n))}
		if err := netlink.LinkAdd(l); err != nil {
			t.Fatal(err)
		}
		defer netlink.LinkDel(l)
	}
	fds := nstest.OpenFDs()
	if r, err := build(Options{}); err == nil {
		r.Close()
		t.Error("two arms with one number")
	}
	if now := nstest.OpenFDs(); now > fds+2 {
		t.Errorf("%d descriptors, %d before", now, fds)
	}
	if l, err := netlink.LinkByName("net1"); err == nil {
		t.Errorf("%s is left", l.Attrs().Name)
	}
	New(t, Options{OneArm: true})
}

func TestSeveralAtATime(t *testing.T) {
	a, b := New(t, Options{}), New(t, Options{OneArm: true})
	for _, r := range []*Rig{a, b} {
		exchange(t, dial(t, r.Client, netip.Addr{}, accepting(t, r.Balancer, r.Front(false), echo)), 1000)
		exchange(t, dial(t, r.Balancer, netip.Addr{}, accepting(t, r.Backend, r.Backend.V6[0], echo)), 1000)
	}
	a.Impair(t, Impairment{Loss: 100})
	exchange(t, dial(t, b.Client, netip.Addr{}, accepting(t, b.Balancer, b.Front(true), echo)), 1000)
}

func TestImpairment(t *testing.T) {
	tests := []struct {
		name     string
		i        Impairment
		counters []string // of the receiver, that tell of it
	}{
		{"loss", Impairment{Loss: 2}, []string{"TCPOFOQueue"}},
		{"duplicates", Impairment{Duplicate: 20}, []string{"TCPDSACKOldSent"}},
		{"late", Impairment{Late: 10}, []string{"TCPOFOQueue"}},
	}
	everyNet(t, func(t *testing.T, r *Rig) {
		for _, one := range []*Host{r.Client, r.Balancer} {
			for _, d := range one.Devices {
				one.Features(t, d, false, TSO, GSO) // packets of a segment each
			}
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				addr := accepting(t, r.Balancer, r.Front(false), echo)
				r.Impair(t, tt.i)
				if n := programs(t, r); n != len(r.ports) {
					t.Errorf("%d programs on %d ports", n, len(r.ports))
				}
				for _, name := range tt.counters {
					before := r.Balancer.Count(t, name)
					for i := 0; r.Balancer.Count(t, name) == before; i++ {
						if i == 50 {
							t.Fatalf("%s stays at %d", name, before)
						}
						exchange(t, dial(t, r.Client, netip.Addr{}, addr), 256<<10)
					}
				}
			})
		}
		if n := programs(t, r); n != 0 {
			t.Errorf("%d programs are left", n)
		}
	})
}

// programs is how many ports impair what enters them.
func programs(t *testing.T, r *Rig) (n int) {
	t.Helper()
	err := r.net.Do(func() error {
		for _, d := range r.net.Devices {
			l, err := netlink.LinkByName(d)
			if err != nil {
				return err
			}
			f, err := netlink.FilterList(l, netlink.HANDLE_MIN_INGRESS)
			if err != nil {
				return err
			}
			n += len(f)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// All that is lost: one direction of one port can be cut.
func TestPortIsCut(t *testing.T) {
	everyNet(t, func(t *testing.T, r *Rig) {
		addr := accepting(t, r.Backend, r.Backend.V4[0], echo)
		c := dial(t, r.Balancer, netip.Addr{}, addr)
		exchange(t, c, 1000)
		t.Run("cut", func(t *testing.T) {
			r.Impair(t, Impairment{Loss: 100}, ToBackend)
			c.Write([]byte("lost"))
			c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			if n, err := c.Read(make([]byte, 8)); err == nil {
				t.Errorf("%d bytes came back", n)
			}
		})
		c.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
			t.Error("after that: ", err)
		}
	})
}

func TestDeviceSettings(t *testing.T) {
	r := New(t, Options{})
	mtu := func() (n int) {
		if err := r.Client.Do(func() error {
			l, err := netlink.LinkByName(r.Client.Devices[0])
			if err == nil {
				n = l.Attrs().MTU
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	feature := func(f Feature) (on bool) {
		if err := r.Client.Do(func() (err error) { on, err = ethtool(r.Client.Devices[0], uint32(f), false); return err }); err != nil {
			t.Fatal(err)
		}
		return on
	}
	t.Run("while", func(t *testing.T) {
		r.Client.MTU(t, r.Client.Devices[0], 1400)
		r.Client.Features(t, r.Client.Devices[0], false, TSO, GSO, TxChecksum)
		r.Client.Features(t, r.Client.Devices[0], true, GRO)
		if n := mtu(); n != 1400 {
			t.Errorf("MTU %d", n)
		}
		for f, want := range map[Feature]bool{TSO: false, GSO: false, TxChecksum: false, GRO: true} {
			if on := feature(f); on != want {
				t.Errorf("feature %#x: %t", uint32(f), on)
			}
		}
		exchange(t, dial(t, r.Client, netip.Addr{}, accepting(t, r.Balancer, r.Front(false), echo)), 1<<20)
	})
	if n := mtu(); n != 1500 {
		t.Errorf("MTU %d afterwards", n)
	}
	for f, want := range map[Feature]bool{TSO: true, GSO: true, TxChecksum: true, GRO: false} {
		if on := feature(f); on != want {
			t.Errorf("feature %#x afterwards: %t", uint32(f), on)
		}
	}
}

func TestSysctlIsTheHosts(t *testing.T) {
	const name = "ipv4/tcp_timestamps"
	r := New(t, Options{})
	read := func(h *Host) (v string) {
		if err := h.Do(func() error {
			b, err := os.ReadFile("/proc/sys/net/" + name)
			v = string(bytes.TrimSpace(b))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return v
	}
	t.Run("while", func(t *testing.T) {
		r.Client.Sysctl(t, name, "0")
		if a, b, c := read(r.Client), read(r.Backend), read(r.Balancer); a != "0" || b != "1" || c != "1" {
			t.Errorf("client %s, backend %s, balancer %s", a, b, c)
		}
	})
	if v := read(r.Client); v != "1" {
		t.Errorf("%s afterwards", v)
	}
}
