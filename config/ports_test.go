// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func loadOne(t *testing.T, listener string) *Config {
	t.Helper()
	c, err := Load("f", []byte("listeners: [{name: a, "+listener+"}]"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A range is an address for each port to who binds, and one word to who reads.
func TestPortRange(t *testing.T) {
	v6 := netip.MustParseAddr("2001:db8::1")
	for _, c := range []struct {
		listen string
		want   []Address
		fronts []string
	}{
		{`":80-82"`, []Address{
			{Addr: netip.IPv6Unspecified(), Any: true, Port: 80},
			{Addr: netip.IPv6Unspecified(), Any: true, Port: 81},
			{Addr: netip.IPv6Unspecified(), Any: true, Port: 82},
		}, []string{":80-82"}},
		{`"[2001:db8::1]:65534-65535"`, []Address{{Addr: v6, Port: 65534}, {Addr: v6, Port: 65535}}, []string{"[2001:db8::1]:65534-65535"}},
		{`"0.0.0.0:80-80"`, []Address{{Addr: netip.IPv4Unspecified(), Port: 80}}, []string{"0.0.0.0:80"}},
		{`["[2001:db8::1]:1-2", "[2001:db8::1]:3-4"]`, []Address{{Addr: v6, Port: 1}, {Addr: v6, Port: 2}, {Addr: v6, Port: 3}, {Addr: v6, Port: 4}},
			[]string{"[2001:db8::1]:1-2", "[2001:db8::1]:3-4"}},
		{`["[2001:db8::1]:1", "[2001:db8::1]:2"]`, []Address{{Addr: v6, Port: 1}, {Addr: v6, Port: 2}}, []string{"[2001:db8::1]:1", "[2001:db8::1]:2"}},
		{`unix:/run/a:80-90`, []Address{{Path: "/run/a:80-90"}}, []string{"unix:/run/a:80-90"}},
		{`unix:/run/a-b`, []Address{{Path: "/run/a-b"}}, []string{"unix:/run/a-b"}},
	} {
		l := loadOne(t, "listen: "+c.listen+", backends: [10.0.0.1:1]").Listeners[0]
		if diff := cmp.Diff(c.want, l.Listen, compare()); diff != "" {
			t.Errorf("%s: %s", c.listen, diff)
		}
		if diff := cmp.Diff(c.fronts, l.Fronts()); diff != "" {
			t.Errorf("%s: %s", c.listen, diff)
		}
	}
	if n := len(loadOne(t, `listen: ":1-1024", backends: [10.0.0.1:2000]`).Listeners[0].Listen); n != MaxRange {
		t.Errorf("the largest range has %d ports", n)
	}
}

// Ranges count by their ports: a small file can't make a large configuration.
func TestRangesAreBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString("listeners: [{name: a, backends: [h:1], listen: [")
	for range maxValues/MaxRange + 1 {
		b.WriteString(`":1-1024",`)
	}
	b.WriteString("]}]")
	_, err := Load("f", []byte(b.String()))
	if err == nil || err.Error() != "f:1:1: more than 262144 values with all aliases and port ranges expanded, must be fewer" {
		t.Errorf("%.200v", err)
	}
}

// A backend's identity and label is the address alone if it has no port.
func TestPortless(t *testing.T) {
	for _, s := range []string{"10.0.0.1", "[2001:db8::1]", "db-1.example", "localhost"} {
		a, err := ParseBackend(s)
		if err != nil || !a.Portless() || a.String() != s {
			t.Errorf("%s: %v, portless %t, %v", s, a, a.Portless(), err)
		}
		if _, err := ParseTarget(s); err == nil {
			t.Errorf("%s: a target without a port is accepted", s)
		}
		if _, err := ParseListen(s); err == nil {
			t.Errorf("%s: a listen address without a port is accepted", s)
		}
	}
	for _, s := range []string{"10.0.0.1:80", "[2001:db8::1]:80", "db:80", "unix:/run/a"} {
		if a, err := ParseBackend(s); err != nil || a.Portless() || a.String() != s {
			t.Errorf("%s: %v, portless %t, %v", s, a, a.Portless(), err)
		}
	}
	if a, err := ParseBackend("[::ffff:10.0.0.1]"); err != nil || a.String() != "10.0.0.1" {
		t.Errorf("v4-mapped: %v, %v", a, err)
	}
}

// One pool may have a server by itself and on one port: two backends.
func TestPortlessBesidePort(t *testing.T) {
	if got := loadOne(t, `listen: ":80-81", backends: [10.0.0.1, 10.0.0.1:80]`).Pools[0].Backends; len(got) != 2 {
		t.Errorf("%d backends", len(got))
	}
	_, err := Load("f", []byte(`listeners: [{name: a, listen: ":80", backends: [10.0.0.1, "[::ffff:10.0.0.1]"]}]`))
	if err == nil || !strings.Contains(err.Error(), `backend "10.0.0.1" is twice`) {
		t.Error(err)
	}
}
