// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"
	"testing"
	"time"
)

func TestRuleMatches(t *testing.T) {
	v4, v6, local := netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("2001:db8::1"), netip.Addr{}
	for _, c := range []struct {
		rule           string
		v4, v6, socket bool
	}{
		{"all", true, true, true},
		{"unix", false, false, true},
		{"0.0.0.0/0", true, false, false},
		{"::/0", false, true, false},
		{"10.1.2.3", true, false, false},
		{"10.1.2.4", false, false, false},
		{"::ffff:10.0.0.0/104", true, false, false},
		{"2001:db8::/32", false, true, false},
	} {
		r, err := parseRule(c.rule)
		if err != nil {
			t.Errorf("%s: %v", c.rule, err)
		}
		for client, want := range map[netip.Addr]bool{v4: c.v4, v6: c.v6, local: c.socket} {
			if got := r.Matches(client); got != want {
				t.Errorf("%s matches %v: %t", c.rule, client, got)
			}
		}
		if again, err := parseRule(r.String()); err != nil || again != r {
			t.Errorf("%s as a string is %s: %v, %v", c.rule, r, again, err)
		}
	}
}

func TestLogModeWants(t *testing.T) {
	for _, c := range []struct {
		mode     LogMode
		status   int
		received uint64
		want     bool
	}{
		{LogOn, 200, 0, true},
		{LogOff, 502, 9, false},
		{LogNonempty, 200, 0, false},
		{LogNonempty, 200, 1, true},
		{LogNonempty, 403, 0, true},
		{LogNonempty, 502, 0, true},
	} {
		if got := c.mode.Wants(c.status, c.received); got != c.want {
			t.Errorf("%s, status %d, %d bytes: %t", c.mode, c.status, c.received, got)
		}
	}
}

func TestRates(t *testing.T) {
	for s, want := range map[string]int64{
		"0": 0, "1": 1, "1000": 1000, "1KiB": 1 << 10, "1536KiB": 1536 << 10, "10MiB": 10 << 20, `"3GiB"`: 3 << 30, "1024GiB": 1 << 40, "0KiB": 0,
	} {
		l := loadOne(t, `listen: ":80", backends: [h:1], upload_rate: `+s+`, download_rate: 7`).Listeners[0]
		if l.UploadRate != want || l.DownloadRate != 7 {
			t.Errorf("%s is %d, download %d", s, l.UploadRate, l.DownloadRate)
		}
	}
	for n, want := range map[int64]string{0: "0", 1023: "1023", 1024: "1KiB", 1536: "1536", 1536 << 10: "1536KiB", 1 << 40: "1024GiB"} {
		if got := rate(n); got != want {
			t.Errorf("%d is written %s", n, got)
		}
	}
}

func TestOnRemove(t *testing.T) {
	for s, want := range map[string]Pool{
		"drain": {}, "close": {CloseOnRemove: true}, "90s": {CloseAfter: 90 * time.Second}, "1ms": {CloseAfter: time.Millisecond},
	} {
		c, err := Load("f", []byte("pools: {p: {backends: [h:1], on_remove: "+s+"}}\nlisteners: [{name: a, listen: :80, pool: p}]"))
		if err != nil {
			t.Fatal(err)
		}
		if p := c.Pools[0]; p.CloseOnRemove != want.CloseOnRemove || p.CloseAfter != want.CloseAfter {
			t.Errorf("%s: close %t, after %s", s, p.CloseOnRemove, p.CloseAfter)
		}
	}
}

// Each method is in one set at most.
func TestMethodSets(t *testing.T) {
	in := map[string]string{}
	for _, name := range MethodSets() {
		methods := MethodSet(name)
		if len(methods) < 14 {
			t.Errorf("%s has %d methods", name, len(methods))
		}
		for _, m := range methods {
			if before, twice := in[m]; twice {
				t.Errorf("%s is in %s and in %s", m, before, name)
			}
			in[m] = name
		}
	}
	for m, want := range map[string]string{
		"/milvus.grpc.MilvusService/Search": "milvus1-reads", "/milvus.grpc.MilvusService/Insert": "milvus1-writes",
		"/milvus.proto.milvus.MilvusService/Query": "milvus2-reads", "/milvus.proto.milvus.MilvusService/Upsert": "milvus2-writes",
		"/milvus.grpc.MilvusService/PreloadCollection": "", "/milvus.proto.milvus.MilvusService/DumpMessages": "",
	} {
		if in[m] != want {
			t.Errorf("%s is in %q, want %q", m, in[m], want)
		}
		if ReadMethods()[m] != (want == "milvus1-reads" || want == "milvus2-reads") {
			t.Errorf("%s: a read %t", m, ReadMethods()[m])
		}
	}
	if MethodSet("milvus") != nil {
		t.Error("a set of another name")
	}
}

func TestGRPC(t *testing.T) {
	c, err := ReadFile("testdata/good/grpc.yaml")
	if err != nil {
		t.Fatal(err)
	}
	g := c.Listeners[0].GRPC
	if g == nil || g.MaxMessage != 512<<20 || g.Connections != 4 || !g.RetryOff || len(g.Routes) != 4 {
		t.Fatalf("%+v", g)
	}
	if r := g.Routes[2]; !r.Broadcast || r.Idempotent || r.Pool != "readers" {
		t.Errorf("%+v", r)
	}
	if g := c.Listeners[1].GRPC; g == nil || g.Connections != 1 || g.RetryOff || g.MaxMessage != 0 || c.Listeners[1].Protocol() != "grpc" {
		t.Errorf("%+v", g)
	}
}
