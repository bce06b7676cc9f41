// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"sluice/internal/netrig"
)

// nft changes the rules of the namespace that sluice runs in.
func nft(t *testing.T, rules string) {
	t.Helper()
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v\n%s", err, out)
	}
}

// TestOffloadBehindNAT: where the host's own firewall changes addresses on the way to or
// from a socket of ours, packets never pass as the socket's. Such a session isn't
// forwarded, and no byte of it is lost; the reason is busy. (Not beside other tests: they
// don't want a conntrack in their namespace.)
func TestOffloadBehindNAT(t *testing.T) {
	for _, c := range []struct {
		name string
		v6   bool
		rule func(h *onHosts, port uint16) string // port is a free one
	}{
		{"front behind dnat", false, func(h *onHosts, port uint16) string {
			return fmt.Sprintf("type nat hook prerouting priority dstnat; ip daddr %s tcp dport %d dnat to %s", h.addr.Addr(), port, h.addr)
		}},
		{"front behind dnat, IPv6", true, func(h *onHosts, port uint16) string {
			return fmt.Sprintf("type nat hook prerouting priority dstnat; ip6 daddr %s tcp dport %d dnat to %s", h.addr.Addr(), port, h.addr)
		}},
		{"backends behind masquerade", false, func(h *onHosts, _ uint16) string {
			return fmt.Sprintf("type nat hook postrouting priority srcnat; ip daddr %s tcp dport 7000 masquerade to :64000-64999", h.rig.Backend.V4[0].String()+"/24")
		}},
		{"backends behind masquerade, IPv6", true, func(h *onHosts, _ uint16) string {
			return fmt.Sprintf("type nat hook postrouting priority srcnat; ip6 daddr %s tcp dport 7000 masquerade to :64000-64999", h.rig.Backend.V6[0].String()+"/64")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // with the other three only
			h := startOnHosts(t, c.v6, netrig.Options{}, "", "")
			to := netip.AddrPortFrom(h.addr.Addr(), uint16(freePort(t)))
			rule := c.rule(h, to.Port())
			if !strings.Contains(rule, "dnat") {
				to = h.addr
			}
			table := fmt.Sprintf("table inet sl_nat_%d", h.addr.Port())
			nft(t, table+" {\nchain c {\n"+strings.Replace(rule, "; ", ";\n", 1)+"\n}\n}\n")
			t.Cleanup(func() { nft(t, "delete "+table) })
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			conn, err := h.rig.Client.Dial(ctx, netip.Addr{}, to)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			n := 0
			exchange := func() {
				t.Helper()
				sent, got := make([]byte, 1000), make([]byte, 1000)
				rand.Read(sent)
				if _, err := conn.Write(sent); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(sent, got) {
					t.Fatalf("message %d came back changed, or not at all: %v", n, err)
				}
				n++
			}
			eventually(t, func() string {
				exchange()
				if l := h.doc().Listeners[0]; l.Fallbacks["busy"] != 1 {
					return fmt.Sprintf("its fallbacks: %v", l.Fallbacks)
				}
				return ""
			})
			for range 40 {
				exchange()
			}
			if cut := h.metric(`sluice_forward_packets_total{outcome="cut"}`); cut != 0 {
				t.Errorf("%v sessions were handed over", cut)
			}
			conn.Close()
			line := h.lines(1)[0]
			if want := fmt.Sprintf(" %d %d ", 1000*n, 1000*n); !strings.HasPrefix(line, "200 client_closed ") || strings.Contains(line, "offload") || !strings.Contains(line, want) {
				t.Errorf("the line says %q, want%sbytes, and not offload", line, want)
			}
		})
	}
}
