// SPDX-License-Identifier: Apache-2.0

package expect

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const verbose = `=== RUN   TestOne
--- PASS: TestOne (0.00s)
=== RUN   TestProbe
sluice-feature: splice no kernel 5.10 is below the floor, 6.1.142
sluice-feature: relay yes
sluice-feature: nat perhaps
--- PASS: TestProbe (0.10s)
=== RUN   TestSplice
    splice_test.go:12: sluice-lacks: splice: verifier says no: E2BIG
--- SKIP: TestSplice (0.00s)
=== RUN   TestTable
=== RUN   TestTable/row
    table_test.go:9: not today
--- FAIL: TestTable (0.00s)
    --- SKIP: TestTable/row (0.00s)
FAIL
`

func TestParse(t *testing.T) {
	want := Output{
		Passed: 2,
		Failed: []string{"TestTable"},
		Features: []Feature{
			{Datapath: "splice", Reason: "kernel 5.10 is below the floor, 6.1.142"},
			{Datapath: "relay", OK: true},
		},
		Skips: []Skip{
			{Test: "TestSplice", Feature: "splice", Why: "verifier says no: E2BIG"},
			{Test: "TestTable/row", Why: "table_test.go:9: not today"},
		},
	}
	if diff := cmp.Diff(want, Parse(verbose)); diff != "" {
		t.Error(diff)
	}
}

func TestComplaints(t *testing.T) {
	o := Parse(verbose)
	for _, c := range []struct {
		kernel string
		want   []string // beginnings
	}{
		{"5.10", []string{"TestTable/row skips without a typed reason"}},
		{"6.12", []string{`TestSplice skips: kernel 6.12 should have "splice"`, "TestTable/row skips without"}},
	} {
		got := o.Complaints(c.kernel)
		if len(got) != len(c.want) {
			t.Fatalf("kernel %s: %q, want %d", c.kernel, got, len(c.want))
		}
		for i := range got {
			if !strings.HasPrefix(got[i], c.want[i]) {
				t.Errorf("kernel %s: %q, want %q", c.kernel, got[i], c.want[i])
			}
		}
	}
}

// Each line of the list says why: an entry without a reason is an excuse.
func TestListIsComplete(t *testing.T) {
	for line := range strings.Lines(list) {
		line, _, _ = strings.Cut(line, "#")
		if f := strings.Fields(line); len(f) == 1 || len(f) == 2 {
			t.Errorf("skips: %q has no reason", strings.TrimSpace(line))
		}
	}
}
