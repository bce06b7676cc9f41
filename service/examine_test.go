// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"sluice/config"
	"sluice/loader"
)

// examine judges a file of this text, without an endpoint.
func examine(t *testing.T, text string, lookup LookupFunc) (map[string]loader.Finding, bool) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "backends.yaml")
	if err := os.WriteFile(file, []byte("stats: off\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	list, ok := Examine(context.Background(), c, file, lookup)
	byName := map[string]loader.Finding{}
	for _, f := range list {
		if f.Why == "" || strings.ContainsRune(f.Why, '\n') || !f.OK && f.Fix == "" {
			t.Errorf("%+v lacks a reason or a fix", f)
		}
		byName[f.Name] = f
	}
	return byName, ok
}

// ownAddress is an IPv4 address of this host that isn't loopback's: the
// namespace of the tests has none until it is given one.
func ownAddress(t *testing.T) netip.Addr {
	t.Helper()
	own, err := hostAddresses()
	if err != nil {
		t.Fatal(err)
	}
	for a := range own {
		if a.Is4() && !a.IsLoopback() {
			return a
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	a, err := netlink.ParseAddr("198.18.7.1/32")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(lo, a); err != nil {
		t.Skipf("no address of our own beside loopback, and none can be added: %v", err)
	}
	t.Cleanup(func() { _ = netlink.AddrDel(lo, a) })
	return netip.MustParseAddr("198.18.7.1")
}

// TestLoops: a backend that is one of the file's listeners by an address of
// this host, or by a name, is found, and nothing else is taken for one.
func TestLoops(t *testing.T) {
	own := ownAddress(t)
	_, port, _ := net.SplitHostPort(freeAddr(t))
	_, more, _ := net.SplitHostPort(freeAddr(t))
	l4, l6 := "0.0.0.0:"+port, "[::]:"+port
	for _, c := range []struct {
		name, listen, backend string
		loop, usable          bool
	}{
		{"own address under a wildcard", l4, own.String() + ":" + port, true, false},
		{"own address under both families", l6, own.String() + ":" + port, true, false},
		{"another port", l4, own.String() + ":" + more, false, true},
		{"another host", l6, "198.18.200.1:" + port, false, true},
		{"a name that is loopback", l6, "loop.test:" + port, true, false},
		{"a name that is an own address", l4, "own.test:" + port, true, false},
		{"a name that is this very address", "127.0.0.1:" + port, "loop.test:" + port, true, false},
		{"a name that is another address", "127.0.0.2:" + port, "loop.test:" + port, false, true},
		{"a name of the other family", l4, "loop6.test:" + port, false, true},
		{"a name without an answer", l4, "none.test:" + port, false, false},
		{"the port that the client came to", l4, own.String(), true, false},
		{"the port that the client came to, another host", l4, "198.18.200.1", false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			found, ok := examine(t, two(c.listen, c.backend), lookup(map[string][]string{
				"loop.test": {"127.0.0.1"}, "loop6.test": {"::1"}, "own.test": {"::ffff:" + own.String()},
			}))
			f, told := found["pool p, backend "+c.backend]
			if told != c.loop || ok != c.usable || f.OK {
				t.Errorf("a loop: %v (%+v), usable: %v, want %v, %v", told, f, ok, c.loop, c.usable)
			}
		})
	}
	two := "pools:\n" + poolYAML("p", "", own.String()+":"+port, "198.18.200.1:1") + "listeners:\n" + listenerYAML("l", l4, "p")
	if found, ok := examine(t, two, nil); !ok || len(found) != 2+2 {
		t.Errorf("beside a loop there is a backend that serves: %v, %+v", ok, found)
	}
}

// TestNamesExamined: each name has its line, once.
func TestNamesExamined(t *testing.T) {
	front := freeAddr(t)
	found, ok := examine(t, two(front, "a.test:1", "b.test:1", "b.test:2", "127.0.0.1:1"), lookup(map[string][]string{"a.test": {"10.0.0.2", "10.0.0.1"}}))
	if a := found["name a.test"]; !a.OK || a.Why != "is 10.0.0.1, 10.0.0.2" {
		t.Errorf("%+v", a)
	}
	if b := found["name b.test"]; b.OK || !strings.Contains(b.Why, "no such host") {
		t.Errorf("%+v", b)
	}
	if l := found[fmt.Sprintf("listener l, %s", front)]; !ok || !l.OK || len(found) != 3 {
		t.Errorf("%v, %+v", ok, found)
	}
}

// TestHeldByOthers: who has an address is named.
func TestHeldByOthers(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for _, listen := range []string{l.Addr().String(), ":" + port, "0.0.0.0:" + port} {
		found, ok := examine(t, two(listen, "198.18.200.1:1"), nil)
		var f loader.Finding
		for name, each := range found {
			if strings.HasPrefix(name, "listener l") {
				f = each
			}
		}
		if ok || f.OK || !strings.Contains(f.Why, "in use") || !strings.Contains(f.Fix, fmt.Sprintf("pid %d", os.Getpid())) {
			t.Errorf("%s: %v, %+v", listen, ok, f)
		}
	}
}
