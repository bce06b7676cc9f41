// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func compare() cmp.Options {
	return cmp.Options{
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
		cmpopts.IgnoreTypes(Position{}, []Position{}),
	}
}

func rulesOf(prefixes ...string) (all []Rule) {
	for _, p := range prefixes {
		all = append(all, Rule{Prefix: netip.MustParsePrefix(p)})
	}
	return all
}

func TestDefaults(t *testing.T) {
	c, err := Load("f.yaml", []byte(`listeners: [{name: a, listen: ":80", backends: [10.0.0.1:1]}]`))
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		File:         "f.yaml",
		Stats:        Stats{Address: Address{Addr: netip.MustParseAddr("127.0.0.1"), Port: 9585}},
		Log:          Log{Level: "info"},
		DrainTimeout: 30 * time.Second,
		Forward:      Forward{MaxFlows: 65536},
		Pools: []*Pool{{
			Name: "a", Balance: RoundRobin, TryEjected: true,
			Backends: []Backend{{
				Address: Address{Addr: netip.MustParseAddr("10.0.0.1"), Port: 1},
				Weight:  1, MaxFails: 1, FailTimeout: 10 * time.Second, State: Up,
			}},
		}},
		Listeners: []*Listener{{
			Name: "a", Listen: []Address{{Addr: netip.IPv6Unspecified(), Any: true, Port: 80}}, Pool: "a",
			Datapath: Auto, ConnectTimeout: 60 * time.Second, IdleTimeout: 10 * time.Minute,
			ProxySend: ProxyOff, HalfClose: true, Backlog: 4096, AccessLog: LogOn,
		}},
	}
	if diff := cmp.Diff(want, c, compare()); diff != "" {
		t.Error(diff)
	}
}

func TestEverything(t *testing.T) {
	c, err := ReadFile("testdata/good/everything.yaml")
	if err != nil {
		t.Fatal(err)
	}
	backend := Backend{Weight: 1, MaxFails: 1, FailTimeout: 10 * time.Second, State: Up}
	socket, drained, downed := backend, backend, backend
	socket.Address = Address{Path: "/run/a.sock"}
	drained = Backend{
		Address: Address{Addr: netip.MustParseAddr("2001:db8::1"), Port: 1},
		Weight:  65535, FailTimeout: time.Millisecond, MaxConns: 1, Backup: true, State: Drain, SlowStart: 20 * time.Second,
	}
	downed.Address, downed.State = Address{Name: "host_a.example", Port: 1}, Down
	want := &Config{
		File:       "testdata/good/everything.yaml",
		AccessLog:  &AccessLog{Path: "-", Format: `$remote_addr "${status}" 你 $end_reason`},
		Stats:      Stats{Address: Address{Path: "/run/sluice.sock"}, Explicit: true},
		Log:        Log{Level: "debug"},
		EventLoops: 1024,
		Forward:    Forward{MaxFlows: 4194304, Ports: []PortRange{{20000, 29999}, {1024, 1025}}, Pin: "/sys/fs/bpf/sluice"},
		Pools:      []*Pool{{Name: "p 1", Balance: LeastConn, TryEjected: true, CloseAfter: 30 * time.Second, Backends: []Backend{socket, drained, downed}}},
		Listeners: []*Listener{{
			Name: "a", Listen: []Address{{Addr: netip.IPv6Unspecified(), Any: true, Port: 80}}, Pool: "p 1",
			Datapath: Relay, ConnectTimeout: 1500 * time.Millisecond,
			Tries: 2, TryTimeout: 3 * time.Second, ProxyAccept: true, ProxySend: ProxyV2,
			Allow:    rulesOf("10.0.0.0/8"),
			Deny:     append(rulesOf("0.0.0.0/0", "::/0"), Rule{All: true}, Rule{Unix: true}),
			MaxConns: 10, MaxConnsPerIP: 2, Keepalive: 30 * time.Second, DeadPeer: 90 * time.Second,
			OnDatapathClose: true, MaxAge: time.Hour, UploadRate: 10 << 20, DownloadRate: 1000, Backlog: 1, AccessLog: LogNonempty,
		}},
	}
	if diff := cmp.Diff(want, c, compare()); diff != "" {
		t.Error(diff)
	}
}

// Aliases and merge keys expand, and a key that is written wins.
func TestAnchors(t *testing.T) {
	c, err := ReadFile("testdata/good/anchors.yaml")
	if err != nil {
		t.Fatal(err)
	}
	second := Backend{
		Address: Address{Name: "db-2.example", Port: 1}, Weight: 3, MaxFails: 1,
		FailTimeout: 90 * time.Second, MaxConns: 7, State: Up,
	}
	for _, p := range c.Pools {
		if len(p.Backends) != 2 {
			t.Fatalf("pool %s has %d backends", p.Name, len(p.Backends))
		}
		if diff := cmp.Diff(second, p.Backends[1], compare()); diff != "" {
			t.Errorf("pool %s: %s", p.Name, diff)
		}
	}
	a, b := c.Listeners[0], c.Listeners[1]
	if b.Name != "b" || b.Pool != "two" || b.IdleTimeout != 0 || b.Listen[0].Path != "/run/b.sock" {
		t.Errorf("merged listener: %+v", b)
	}
	want := rulesOf("::/0", "10.0.0.0/8", "10.0.0.1/32")
	if diff := cmp.Diff(want, a.Allow, compare()); diff != "" {
		t.Error(diff)
	}
}

// The colon of an address in braces needs no quotes, wherever it is.
func TestFlowAddresses(t *testing.T) {
	c, err := Load("f", []byte("listeners: [{name: a, listen: [:80, 127.0.0.1:81], backends: [a.b:3,c:4, 10.0.0.1:5], deny: [::/0, fd00::/8]}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, b := range c.Pools[0].Backends {
		got = append(got, b.Address.String())
	}
	for _, a := range c.Listeners[0].Listen {
		got = append(got, a.String())
	}
	for _, p := range c.Listeners[0].Deny {
		got = append(got, p.String())
	}
	if diff := cmp.Diff([]string{"a.b:3", "c:4", "10.0.0.1:5", ":80", "127.0.0.1:81", "::/0", "fd00::/8"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestParseFormat(t *testing.T) {
	text := func(s string) Piece { return Piece{Text: s} }
	v := func(s string) Piece { return Piece{Variable: s} }
	for _, c := range []struct {
		format string
		want   []Piece
		err    string
	}{
		{"$status", []Piece{v("status")}, ""},
		{"a${status}b$pid$msec.", []Piece{text("a"), v("status"), text("b"), v("pid"), v("msec"), text(".")}, ""},
		{"text", []Piece{text("text")}, ""},
		{"$statu", nil, "unknown variable $statu, did you mean $status?"},
		{"$", nil, "a dollar without a variable's name, must be $name or ${name}"},
		{"$$status", nil, "a dollar without a variable's name, must be $name or ${name}"},
		{"${status", nil, `no closing brace after "${status", must be ${name}`},
		{"${}", nil, "a dollar without a variable's name, must be $name or ${name}"},
	} {
		got, err := ParseFormat(c.format)
		if c.err != "" {
			if err == nil || err.Error() != c.err {
				t.Errorf("%q: error %v, want %s", c.format, err, c.err)
			}
			continue
		}
		if err != nil || !cmp.Equal(c.want, got) {
			t.Errorf("%q: %v %v", c.format, err, cmp.Diff(c.want, got))
		}
	}
	proxy, err := ParseFormat(FormatProxy)
	if err != nil || len(proxy) != 22 {
		t.Errorf("proxy: %d pieces, %v", len(proxy), err)
	}
	json, err := ParseFormat(FormatJSON)
	if err != nil || len(json) != 11+len(ownVariables()) || json[0] != v("remote_addr") {
		t.Errorf("json: %v, %v", json, err)
	}
	if KnownVariable("nope") || !KnownVariable("grpc_status") || !KnownVariable("proxy_protocol_port") {
		t.Error("KnownVariable")
	}
}
