// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/config"
)

func TestNginxTime(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"10": 10 * time.Second, "10s": 10 * time.Second, "500ms": 500 * time.Millisecond, "1h30m": 90 * time.Minute,
		"1h 30m": 90 * time.Minute, "1m30": 90 * time.Second, "2d": 48 * time.Hour, "1w": 168 * time.Hour, "1M": 720 * time.Hour,
		"1y": 8760 * time.Hour, "0": 0, "1s500ms": 1500 * time.Millisecond, "87600h": maxDuration,
	} {
		if got, ok := nginxTime(s); !ok || got != want {
			t.Errorf("%s is %v, %t", s, got, ok)
		}
	}
	for _, s := range []string{"", "s", "1x", "1m1h", "1s1s", "-1", "1.5s", "87601h", "99999999999999999999", "1 2", "1h x", "off"} {
		if got, ok := nginxTime(s); ok {
			t.Errorf("%q is %v", s, got)
		}
	}
}

func TestHAProxyTime(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"5000": 5 * time.Second, "10us": 10 * time.Microsecond, "1ms": time.Millisecond, "2s": 2 * time.Second, "3m": 3 * time.Minute, "1h": time.Hour, "2d": 48 * time.Hour,
	} {
		if got, ok := haproxyTime(s); !ok || got != want {
			t.Errorf("%s is %v, %t", s, got, ok)
		}
	}
	for _, s := range []string{"", "s", "1w", "1s1s", "-1", "99999999999999999999d", "87601h"} {
		if got, ok := haproxyTime(s); ok {
			t.Errorf("%q is %v", s, got)
		}
	}
}

func TestNginxSize(t *testing.T) {
	for s, want := range map[string]int64{"0": 0, "1000": 1000, "64k": 65536, "1M": 1 << 20, "2g": 2 << 30, "1024g": 1 << 40} {
		if got, ok := nginxSize(s); !ok || got != want {
			t.Errorf("%s is %d, %t", s, got, ok)
		}
	}
	for _, s := range []string{"", "k", "-1", "1.5m", "1025g", "$x"} {
		if got, ok := nginxSize(s); ok {
			t.Errorf("%q is %d", s, got)
		}
	}
}

func TestHAProxyWords(t *testing.T) {
	for s, want := range map[string]string{
		`a  b	c`:             `["a" "b" "c"]`,
		`a # b`:              `["a"]`,
		`a\ b \# "c # d"`:    `["a b" "#" "c # d"]`,
		`send PING\r\n`:      `["send" "PING\r\n"]`,
		`'a\n"b"' "c\"d\\"`:  `["a\\n\"b\"" "c\"d\\"]`,
		`a""b '' c`:          `["ab" "" "c"]`,
		`\x41\xzz\q \`:       `["A\\xzz\\q" "\\"]`,
		"a\r\n":              `["a"]`,
		`"${HOST}:1" '$NOT'`: `["${HOST}:1" "$NOT"] env`,
		`$NOT \$NOT`:         `["$NOT" "$NOT"]`,
		`a "b`:               `[] error`,
		``:                   `[]`,
	} {
		got, env, bad := haproxyWords(s)
		text := fmt.Sprintf("%q", got)
		switch {
		case bad != "":
			text = "[] error"
		case env:
			text += " env"
		}
		if text != want {
			t.Errorf("%q: %s, want %s", s, text, want)
		}
	}
}

// firstMatch is nginx's access module.
func firstMatch(rules []rule, client netip.Addr) bool {
	for _, r := range rules {
		if r.all || r.unix && !client.IsValid() || r.prefix.IsValid() && r.prefix.Contains(client) {
			return r.allow
		}
	}
	return true
}

// Rules in order become lists that accept the same clients in sluice, judged by
// its own reader and its own matching.
func TestSluicesRules(t *testing.T) {
	words := []string{"all", "unix:", "10.0.0.0/8", "10.0.0.0/30", "10.0.0.1", "10.0.0.2/31", "0.0.0.0/0", "::/0", "2001:db8::/126", "2001:db8::1", "192.168.0.0/16"}
	clients := []netip.Addr{{}}
	for _, s := range []string{"10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.9.9.9", "11.0.0.1", "192.168.1.1", "2001:db8::", "2001:db8::1", "2001:db8::3", "2001:db9::1", "::1"} {
		clients = append(clients, netip.MustParseAddr(s))
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var rules []rule
		said := ""
		for range rng.IntN(6) {
			r, ok := parseRule(rng.IntN(2) == 0, words[rng.IntN(len(words))])
			if !ok {
				t.Fatal(r.text)
			}
			rules = append(rules, r)
			said += fmt.Sprintf("%t %s; ", r.allow, r.text)
		}
		allow, deny, err := sluicesRules(rules)
		if err != nil {
			t.Fatal(said, err)
		}
		c, err := config.Load("f", fmt.Appendf(nil, "listeners: [{name: a, listen: ':1', backends: [h:2], allow: %s, deny: %s}]", list(allow), list(deny)))
		if err != nil {
			t.Fatal(said, err)
		}
		l := c.Listeners[0]
		for _, client := range clients {
			if got, want := sluiceAccepts(l, client), firstMatch(rules, client); got != want {
				t.Fatalf("%sallow %v deny %v: %v gets in: %t, in nginx: %t", said, allow, deny, client, got, want)
			}
		}
	}
}

// sluiceAccepts is the rule of docs/config.md.
func sluiceAccepts(l *config.Listener, client netip.Addr) bool {
	for _, r := range l.Allow {
		if r.Matches(client) {
			return true
		}
	}
	for _, r := range l.Deny {
		if r.Matches(client) {
			return false
		}
	}
	return len(l.Allow) == 0
}

// What YAML could take for something else is in quotes, and comes back.
func TestText(t *testing.T) {
	for s, want := range map[string]string{
		"readers": "readers", "10.0.0.1:80": "10.0.0.1:80", "db-1.example:5432": "db-1.example:5432", "/var/log/a.log": "/var/log/a.log",
		"": `""`, "10": `"10"`, "1.5": `"1.5"`, "true": `"true"`, "No": `"No"`, "null": `"null"`, "a b": `"a b"`, ":80": `":80"`,
		"12:34": `"12:34"`, "a: b": `"a: b"`, `a"b`: `"a\"b"`, "-": `"-"`, "你": `"你"`, "a<b>&": `"a<b>&"`, "off": "off",
	} {
		if got := text(s); got != want {
			t.Errorf("%q is written %s, want %s", s, got, want)
		}
	}
}

// However long and odd, a name is one that sluice takes.
func TestNames(t *testing.T) {
	for _, name := range []string{strings.Repeat("x", 500), strings.Repeat("\x01", 90), "你好", "a b", `"q"`, "\u2028", "~"} {
		src := fmt.Sprintf("stream { upstream '%s' { server a:1; server b:1; } server { listen 1; proxy_pass '%s'; } server { listen 2; proxy_pass '%s'; } }",
			strings.ReplaceAll(name, `"`, `\"`), strings.ReplaceAll(name, `"`, `\"`), strings.ReplaceAll(name, `"`, `\"`))
		r, err := importFrom(memory{"nginx.conf": src}, "nginx.conf")
		if err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		passes(t, r.YAML)
	}
}
