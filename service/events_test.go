// SPDX-License-Identifier: Apache-2.0

package service

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// told are the lines of the service's log with this message.
func (r *rig) told(msg string) []map[string]any {
	var out []map[string]any
	for line := range strings.Lines(r.log.String()) {
		var e map[string]any
		if json.Unmarshal([]byte(line), &e) == nil && e["message"] == msg {
			out = append(out, e)
		}
	}
	return out
}

// TestWhyAttemptsFail: the log says why a backend was ejected, or an attempt
// failed where nobody is, without debug.
func TestWhyAttemptsFail(t *testing.T) {
	for _, c := range []struct {
		name    string
		backend func(*testing.T) string
		want    string
	}{
		{"refused", freeAddr, "refused"},
		{"timed out", fullBackend, "timed out"},
		{"not permitted", func(t *testing.T) string { return routed(t, "198.18.31.0/24", unix.RTN_PROHIBIT) }, "permission denied"},
		{"unreachable", func(t *testing.T) string { return routed(t, "198.18.32.0/24", unix.RTN_UNREACHABLE) }, "no route to host"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bad, good := c.backend(t), backend(t, "good")
			alone, both, fronts := freeAddr(t), freeAddr(t), "connect_timeout: 100ms"
			r := newRig(t, "pools:\n"+poolYAML("alone", "", bad)+poolYAML("both", "", bad, good)+"listeners:\n"+
				fmt.Sprintf("  - {name: x, listen: %q, pool: alone, %s}\n", alone, fronts)+
				fmt.Sprintf("  - {name: y, listen: %q, pool: both, %s}\n", both, fronts))
			if s := open(t, both); s.name != "good" {
				t.Errorf("got %s", s.name)
			}
			for range 3 {
				if _, err := tryOpen(alone); err == nil {
					t.Error("a session without a backend")
				}
			}
			for _, w := range []struct{ msg, pool string }{{"backend ejected", "both"}, {"attempt failed", "alone"}} {
				eventually(t, w.msg, func() bool { return len(r.told(w.msg)) > 0 })
				e := r.told(w.msg)[0]
				if e["pool"] != w.pool || e["backend"] != bad || e["level"] != "warn" || !strings.Contains(fmt.Sprint(e["error"]), c.want) {
					t.Errorf("%s: %v, want a warning of pool %s that says %q", w.msg, e, w.pool, c.want)
				}
			}
			eventually(t, "all three failures counted", func() bool {
				n := 0.0
				for _, e := range r.told("attempt failed") {
					n += e["count"].(float64)
				}
				return n == 3
			})
		})
	}
}

// fullBackend listens, and has no room for another connection.
func fullBackend(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", sa.(*unix.SockaddrInet4).Port)
	for range 8 {
		c, err := net.DialTimeout("tcp", addr, 100*time.Millisecond)
		if err != nil {
			return addr
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("its queue doesn't fill")
	return ""
}

// routed is an address to which the namespace has a route of this type.
func routed(t *testing.T, network string, kind int) string {
	t.Helper()
	_, dst, err := net.ParseCIDR(network)
	if err != nil {
		t.Fatal(err)
	}
	route := &netlink.Route{Dst: dst, Type: kind}
	if err := netlink.RouteAdd(route); err != nil {
		t.Skipf("no route can be added: %v", err)
	}
	t.Cleanup(func() { _ = netlink.RouteDel(route) })
	ip := dst.IP.To4()
	return fmt.Sprintf("%d.%d.%d.9:7", ip[0], ip[1], ip[2])
}

// TestListenersAreTold: each listener's line comes at start, and again when an
// edit changes it, and only then.
func TestListenersAreTold(t *testing.T) {
	a, front, other := backend(t, "a"), freeAddr(t), freeAddr(t)
	pools := "pools:\n" + poolYAML("p", "", a) + poolYAML("q", "", a) + "listeners:\n"
	still := listenerYAML("still", other, "q")
	r := newRig(t, pools+still+listenerYAML("l", front, "p"))
	r.mustReload(pools + still + listenerYAML("l", front, "p")) // nothing
	r.mustReload(pools + still + listenerYAML("l", front, "q")) // another pool
	r.mustReload(pools + still + fmt.Sprintf("  - {name: l, listen: %q, pool: q, datapath: relay}\n", front))
	eventually(t, "four lines", func() bool { return len(r.told("listening")) >= 4 })
	var got []string
	for _, e := range r.told("listening") {
		got = append(got, fmt.Sprintf("%s %s %s", e["listener"], e["pool"], e["reason"]))
	}
	want := "still q running without privileges, l p running without privileges, l q running without privileges, l q the file says relay"
	if s := strings.Join(got, ", "); s != want {
		t.Errorf("told:\n%s, want\n%s", s, want)
	}
}
