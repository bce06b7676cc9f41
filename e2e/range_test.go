// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// TestRange: a range listens on each of its ports, and a backend without a port
// gets the one that the client came to. In the log it is what was dialled, in
// the statistics the address alone.
func TestRange(t *testing.T) {
	const ports = 3
	first := freePorts(t, ports)
	for _, c := range []struct{ name, backend, port string }{
		{"IPv4", "127.0.0.2", ""}, {"IPv6", "[::1]", ""}, {"a port of its own", "127.0.0.3", fmt.Sprintf(":%d", freePort(t))},
	} {
		t.Run(c.name, func(t *testing.T) {
			backend := c.backend + c.port
			var dialled []string
			for n := range ports {
				addr := fmt.Sprintf("%s:%d", c.backend, first+n)
				if c.port != "" {
					addr = backend
				}
				if dialled = append(dialled, addr); c.port == "" || n == 0 {
					serve(t, "tcp", addr, answer)
				}
			}
			listen := fmt.Sprintf("127.0.0.1:%d-%d", first, first+ports-1)
			i := start(t, fmt.Sprintf("listeners:\n  - {name: l, listen: %q, backends: [%q]}\n", listen, backend))
			for n, addr := range dialled {
				if got := talk(t, dialer{"tcp", fmt.Sprintf("127.0.0.1:%d", first+n)}); got != "response!" {
					t.Errorf("port %d: %q", first+n, got)
				}
				if line := i.lines(n + 1)[n]; !strings.Contains(line, fmt.Sprintf("%q", addr)) {
					t.Errorf("port %d, not to %s: %s", first+n, addr, line)
				}
			}
			d := i.doc()
			if b := d.Pools[0].Backends; len(b) != 1 || b[0].Address != backend || b[0].Total != ports {
				t.Errorf("%+v", b)
			}
			if l := d.Listeners[0].Listen; len(l) != 1 || l[0] != listen {
				t.Errorf("listens on %v", l)
			}
			series := fmt.Sprintf(`sluice_backend_sessions_total{backend=%q,pool="l"}`, backend)
			if got := i.metric(series); got != ports {
				t.Errorf("%s is %v", series, got)
			}
		})
	}
}
