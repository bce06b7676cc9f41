// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"testing"

	"sluice/internal/needs"
	"sluice/internal/netrig"
)

// TestTortureOnHosts: the torture with clients and backends on other hosts, over
// IPv4 and IPv6, with two arms and one, on nets that lose, double and reorder packets
// on every hop. A lost reset would leave its session to the idle timeout: none where
// packets are lost. SLUICE_TORTURE=20000 is the long form.
func TestTortureOnHosts(t *testing.T) {
	t.Parallel()
	nets := []struct {
		arm  bool
		v6   bool
		does netrig.Impairment
	}{
		{false, false, netrig.Impairment{}},
		{false, true, netrig.Impairment{}},
		{true, false, netrig.Impairment{Loss: 1}},
		{false, true, netrig.Impairment{Loss: 1}},
		{false, false, netrig.Impairment{Loss: 2}},
		{true, true, netrig.Impairment{Loss: 2}},
		{false, false, netrig.Impairment{Duplicate: 5, Late: 10}},
		{true, true, netrig.Impairment{Loss: 1, Duplicate: 2, Late: 5}},
	}
	for _, path := range []string{"relay", "splice", "offload"} {
		for _, n := range nets {
			t.Run(fmt.Sprintf("%s/one arm %t/IPv6 %t/%+v", path, n.arm, n.v6, n.does), func(t *testing.T) {
				t.Parallel()
				switch path {
				case "splice":
					needSplice(t)
				case "offload":
					needs.Offload(t)
				}
				h := elsewhere(t, netrig.Options{OneArm: n.arm}, n.v6)
				h.Impair(t, n.does)
				o := ordeal{sessions: tortureSessions(300), most: 1 << 20, endings: endings}
				if n.does != (netrig.Impairment{}) {
					o.endings, o.most = clientResets, 128<<10
				}
				o.run(t, path)
			})
		}
	}
}
