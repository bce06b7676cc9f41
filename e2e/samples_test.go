// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net"
	"strings"
	"testing"
)

// server is a backend as both configurations name it.
type server struct {
	addr  string
	nginx string // options after the address
	yaml  string // further keys
}

// sample is one set-up for both balancers, and what a client does to it.
type sample struct {
	name     string
	front    string // tcp (127.0.0.1), tcp6 ([::1]), unix
	servers  []server
	nginx    string // directives of nginx's server{}
	yaml     string // further keys of the listener
	lines    int    // that both write
	least    int    // seconds that the last session takes for a structural reason
	act      func(t *testing.T, d dialer) string
	upstream string // the group's name; set by the test
}

// dialer connects to the front of one of the two.
type dialer struct{ network, addr string }

func (d dialer) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.Dial(d.network, d.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestSamples runs each sample against Debian's nginx and against sluice, as
// root and without privileges, and compares the logs line by line, field by
// field, and what the clients saw.
func TestSamples(t *testing.T) {
	for _, u := range users() {
		t.Run(u.name, func(t *testing.T) {
			samples := allSamples(t)
			var blocks, pools, listeners strings.Builder
			var a, b []dialer
			var fronts []string
			for i := range samples {
				s := &samples[i]
				s.upstream = "up_" + strings.ReplaceAll(s.name, " ", "_")
				da, db := s.dialer(t, user{}), s.dialer(t, u)
				a, b = append(a, da), append(b, db)
				fronts = append(fronts, s.listen(da))
				blocks.WriteString(s.nginxBlock(da))
				pools.WriteString(s.pool())
				listeners.WriteString(s.listener(db))
			}
			nginxLog := nginx(t, blocks.String(), fronts)
			i := startAs(t, u, "pools:\n"+pools.String()+"listeners:\n"+listeners.String())
			for k, s := range samples {
				t.Run(s.name, func(t *testing.T) {
					before, beforeOurs := len(readLines(t, nginxLog)), len(readLines(t, i.access))
					sawA := s.act(t, a[k])
					theirs := awaitLines(t, nginxLog, before+s.lines)[before:]
					sawB := s.act(t, b[k])
					ours := awaitLines(t, i.access, beforeOurs+s.lines)[beforeOurs:]
					sameLines(t, theirs, ours, s.least)
					if sawA != sawB {
						t.Errorf("nginx's client saw %q, sluice's %q", sawA, sawB)
					}
				})
			}
		})
	}
}

func (s *sample) dialer(t *testing.T, u user) dialer {
	switch s.front {
	case "unix":
		return dialer{"unix", tempDir(t, u) + "/front"}
	case "tcp6":
		return dialer{"tcp", fmt.Sprintf("[::1]:%d", freePort(t))}
	}
	return dialer{"tcp", fmt.Sprintf("127.0.0.1:%d", freePort(t))}
}

func (s *sample) listen(d dialer) string {
	if d.network == "unix" {
		return "unix:" + d.addr
	}
	return d.addr
}

func (s *sample) nginxBlock(d dialer) string {
	var w strings.Builder
	fmt.Fprintf(&w, "\tupstream %s {\n", s.upstream)
	for _, b := range s.servers {
		fmt.Fprintf(&w, "\t\tserver %s %s;\n", b.addr, b.nginx)
	}
	listen := s.listen(d)
	if strings.Contains(s.nginx, "PROXY_ACCEPT") {
		listen += " proxy_protocol"
	}
	halfClose := "proxy_half_close on;" // our default isn't nginx's
	if strings.Contains(s.nginx, "proxy_half_close") {
		halfClose = ""
	}
	fmt.Fprintf(&w, "\t}\n\tserver {\n\t\tlisten %s;\n\t\tproxy_pass %s;\n\t\t%s\n\t\t%s\n\t}\n",
		listen, s.upstream, halfClose, strings.ReplaceAll(s.nginx, "PROXY_ACCEPT;", ""))
	return w.String()
}

func (s *sample) pool() string {
	var w strings.Builder
	fmt.Fprintf(&w, "  %s:\n    all_ejected: fail\n    backends:\n", s.upstream)
	for _, b := range s.servers {
		fmt.Fprintf(&w, "      - {address: %q%s}\n", b.addr, b.yaml)
	}
	return w.String()
}

func (s *sample) listener(d dialer) string {
	return fmt.Sprintf("  - {name: %q, listen: %q, pool: %s%s}\n", s.name, s.listen(d), s.upstream, s.yaml)
}
