// SPDX-License-Identifier: Apache-2.0

package result

import "testing"

func TestCutsOfASeries(t *testing.T) {
	cut := func(contender string, c *Cuts) Sample { return Sample{Contender: contender, Cuts: c} }
	failed := cut("a", &Cuts{Sessions: 1000})
	failed.Error = "it failed"
	s := &Series{Samples: []Sample{
		cut("a", &Cuts{Sessions: 10, Cut: 9, Median: 256, Most: 512, Exchange: 128, Reasons: map[string]uint64{"busy": 1}}),
		cut("a", &Cuts{Sessions: 10, Cut: 0, Exchange: 128}),
		cut("a", &Cuts{Sessions: 12, Cut: 12, Median: 512, Most: 640, Exchange: 128, Reasons: map[string]uint64{"busy": 2, "ports": 1}}),
		failed, cut("b", nil), cut("c", &Cuts{Sessions: 3}), cut("d", &Cuts{Sessions: 1, Cut: 1, Median: 3 << 20, Most: 20480})}}
	for contender, want := range map[string]string{
		"a": "21 of 32 sessions handed over, after 384 bytes (3 messages) in the median, 640 bytes (5 messages) at most (not: busy 3, ports 1)",
		"c": "0 of 3 sessions handed over",
		"d": "1 of 1 sessions handed over, after 3.0 MiB in the median, 20.0 KiB at most",
	} {
		if got := s.Stat("p50", contender).Cuts.String(); got != want {
			t.Errorf("%s: %q, want %q", contender, got, want)
		}
	}
	if c := s.Cuts("b"); c != nil {
		t.Errorf("of one that hands nothing over: %+v", c)
	}
}
