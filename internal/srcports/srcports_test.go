// SPDX-License-Identifier: Apache-2.0

package srcports

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

func TestChoose(t *testing.T) {
	usual := Sysctls{Local: "32768\t60999\n", Reserved: "\n"}
	for _, tt := range []struct {
		name string
		want []Range
		s    Sysctls
		got  []Range
		err  string
	}{
		{"auto", nil, usual, []Range{{10240, 32767}, {61000, 65535}}, ""},
		{"auto, some reserved", nil, Sysctls{"32768 60999", "11000-11099,12000,50000\n"}, []Range{{10240, 10999}, {11100, 11999}, {12001, 32767}, {61000, 65535}}, ""},
		{"auto, the kernel has all", nil, Sysctls{"1024 65535", ""}, nil, ""},
		{"auto, only low ones are left", nil, Sysctls{"10000 65535", ""}, nil, ""},
		{"outside", []Range{{20000, 29999}}, usual, []Range{{20000, 29999}}, ""},
		{"reserved", []Range{{40000, 49999}}, Sysctls{"32768 60999", "40000-49999"}, []Range{{40000, 49999}}, ""},
		{"reserved in two pieces", []Range{{40000, 49999}}, Sysctls{"32768 60999", "40000-44999,45000-50000"}, []Range{{40000, 49999}}, ""},
		{"the kernel's", []Range{{40000, 49999}}, usual, nil, "net.ipv4.ip_local_reserved_ports=40000-49999"},
		{"some of the kernel's", []Range{{20000, 20999}, {40000, 40999}, {32000, 33000}}, Sysctls{"32768 60999", "41000,42000-42999\n"}, nil, "net.ipv4.ip_local_reserved_ports=41000,42000-42999,40000-40999,32000-33000, or"},
		{"partly", []Range{{32000, 32768}}, usual, nil, "chooses from 32768-32768 itself"},
		{"bad range", nil, Sysctls{"x", ""}, nil, "ip_local_port_range"},
		{"bad reserved", nil, Sysctls{"32768 60999", "9-1"}, nil, "ip_local_reserved_ports"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Choose(tt.want, tt.s)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("%v, %v", got, err)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, tt.got) {
				t.Errorf("%v, %v; want %v", got, err, tt.got)
			}
		})
	}
}

var (
	one = netip.MustParseAddrPort("198.18.0.1:80")
	two = netip.MustParseAddrPort("[fd00::1]:80")
)

// clock is one that tests set.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func newPorts(t *testing.T, c *clock, ranges ...Range) *Ports {
	t.Helper()
	p := New(ranges, c.now)
	t.Cleanup(func() { p.Close() })
	return p
}

// TestTake: each port once toward a backend, in turn, the same ones toward another.
func TestTake(t *testing.T) {
	c := &clock{time.Now()}
	p := newPorts(t, c, Range{20000, 20009})
	for _, backend := range []netip.AddrPort{one, two} {
		for want := uint16(20001); want <= 20009; want++ { // the first is the claim
			if got, ok := p.Take(backend); !ok || got != want {
				t.Fatalf("%d, %t; want %d", got, ok, want)
			}
		}
		if got, ok := p.Take(backend); ok {
			t.Fatalf("%d is taken twice", got)
		}
	}
	p.Give(one, 20003, time.Minute)
	p.Give(one, 20003, 0) // it isn't taken
	p.Give(one, 1, 0)     // nor is it ours
	if got, ok := p.Take(one); ok {
		t.Errorf("%d rests", got)
	}
	p.Give(one, 20007, 0)
	if got, _ := p.Take(one); got != 20007 {
		t.Errorf("%d", got)
	}
	c.t = c.t.Add(time.Minute)
	if got, _ := p.Take(one); got != 20003 {
		t.Errorf("%d after its rest", got)
	}
}

// TestOrder: a port that was given back has its turn when all others have had theirs.
func TestOrder(t *testing.T) {
	c := &clock{time.Now()}
	p := newPorts(t, c, Range{20000, 20200})
	seen := map[uint16]bool{}
	for range 200 {
		port, ok := p.Take(one)
		if !ok || seen[port] {
			t.Fatalf("%d, %t", port, ok)
		}
		seen[port] = true
		p.Give(one, port, 0)
	}
	if port, _ := p.Take(one); port != 20001 {
		t.Errorf("%d", port)
	}
}

// TestShared: two of them in one host never have the same port, whoever else has
// some, and give all back.
func TestShared(t *testing.T) {
	other, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(other)
	if err := unix.Bind(other, &unix.SockaddrInet4{Port: 20224}); err != nil { // the first of a block
		t.Skip(err)
	}
	before := nstest.OpenFDs()
	c := &clock{time.Now()}
	a, b := newPorts(t, c, Range{20000, 30239}), newPorts(t, c, Range{20000, 30239})
	owner := map[uint16]*Ports{}
	for i := range 20000 {
		p := []*Ports{a, b}[i%2]
		port, ok := p.Take(one)
		if !ok {
			break
		}
		if owner[port] != nil {
			t.Fatalf("%d is had twice", port)
		}
		if port >= 20224 && port < 20224+blockSize {
			t.Fatalf("%d: its block is another's", port)
		}
		owner[port] = p
	}
	if len(owner) < 9500 {
		t.Errorf("%d ports of 10240", len(owner))
	}
	a.Close()
	b.Close()
	if after := nstest.OpenFDs(); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
	if _, ok := a.Take(one); ok {
		t.Error("a port after the end")
	}
}

// TestAdopt: a port that a connection has already is taken, its block claimed before its
// turn, and it is given to nobody else until it is given back.
func TestAdopt(t *testing.T) {
	c := &clock{time.Now()}
	p := newPorts(t, c, Range{20000, 20999})
	for _, port := range []uint16{20600, 20601} {
		if !p.Adopt(one, port) {
			t.Fatalf("%d can't be had", port)
		}
	}
	for _, port := range []uint16{20600, 20480, 19999, 21000} { // taken; a claim's; none of ours
		if p.Adopt(one, port) {
			t.Errorf("%d is had", port)
		}
	}
	if other := newPorts(t, c, Range{20480, 20735}); true {
		if port, ok := other.Take(one); ok {
			t.Errorf("another has %d of a block that is claimed", port)
		}
		if other.Adopt(one, 20602) {
			t.Error("another adopts a port of a block that is claimed")
		}
	}
	had := map[uint16]bool{}
	for {
		port, ok := p.Take(one)
		if !ok {
			break
		}
		if had[port] || port == 20600 || port == 20601 {
			t.Errorf("%d is had twice", port)
		}
		had[port] = true
	}
	if want := 1000 - 5 - 2; len(had) != want { // five blocks, and the two
		t.Errorf("%d ports, want %d", len(had), want)
	}
	p.Give(one, 20600, 0)
	if port, ok := p.Take(one); !ok || port != 20600 {
		t.Errorf("%d, %t, want the one that was given back", port, ok)
	}
	if !p.Adopt(two, 20600) {
		t.Error("a port in use toward one backend isn't had toward another")
	}
}

// TestAtOnce: from several goroutines.
func TestAtOnce(t *testing.T) {
	p := New([]Range{{20000, 22047}}, time.Now)
	defer p.Close()
	var mu sync.Mutex
	had := map[uint16]bool{}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 2000 {
				port, ok := p.Take(two)
				mu.Lock()
				if !ok || had[port] {
					t.Errorf("%d, %t", port, ok)
				}
				had[port] = true
				mu.Unlock()
				mu.Lock()
				delete(had, port)
				mu.Unlock()
				p.Give(two, port, 0)
			}
		})
	}
	wg.Wait()
}

func BenchmarkTake(b *testing.B) {
	p := New([]Range{{20000, 60000}}, time.Now)
	defer p.Close()
	for b.Loop() {
		port, _ := p.Take(one)
		p.Give(one, port, 0)
	}
}

// TestUnclaimed: where the claim of another isn't seen, as from another network
// namespace, both give out the same ports. That is what the claims are for.
func TestUnclaimed(t *testing.T) {
	here := newPorts(t, &clock{time.Now()}, Range{20000, 20255})
	port, ok := here.Take(one)
	if !ok {
		t.Fatal("no port")
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // which ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		there := New([]Range{{20000, 20255}}, time.Now)
		defer there.Close()
		if same, ok := there.Take(one); !ok || same != port {
			done <- fmt.Errorf("%d, %t, want %d", same, ok, port)
			return
		}
		done <- nil
	}()
	switch err := <-done; {
	case errors.Is(err, unix.EPERM):
		t.Skip("no right to make a network namespace")
	case err != nil:
		t.Error(err)
	}
}
