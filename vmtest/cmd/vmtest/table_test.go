// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"

	"sluice/vmtest"
	"sluice/vmtest/expect"
)

func TestRowAndTable(t *testing.T) {
	r := row{kernel: "6.1", version: "6.1.192-2", features: map[string]expect.Feature{}}
	suite := job{name: "./loader", isTest: true}
	r.add(suite, vmtest.Result{Release: "6.1.0-56", Wall: 7 * time.Second},
		"=== RUN   TestA\nsluice-feature: splice no verifier: too many | instructions\n--- PASS: TestA (0.1s)\nPASS\n")
	if !r.ok() {
		t.Errorf("complaints %q", r.cells[0].complaints)
	}
	r.add(suite, vmtest.Result{Release: "6.1.0-56", Code: 125}, "=== RUN   TestB\n")
	r.add(suite, vmtest.Result{Release: "6.1.0-56"}, "=== RUN   TestC\n    c.go:1: just so\n--- SKIP: TestC (0.0s)\n")
	r.add(suite, vmtest.Result{Release: "6.1.0-56", Code: 1}, "--- FAIL: TestD (0.0s)\n    --- FAIL: TestD/x (0.0s)\nFAIL\n")
	r.add(suite, vmtest.Result{Release: "6.1.0-56", Code: 2}, "--- FAIL: TestE (0.0s)\npanic: test timed out after 3m0s\n")
	r.add(job{name: "sluice"}, vmtest.Result{Release: "6.1.0-56", Wall: 5 * time.Second},
		"dispatch: yes\nnat       no   not built yet\nrelay: yes, always\ndoctor exits 0\noffload is safe here (tried in: x)\nsplice is NOT safe here\nselftest exits 1\n")
	if r.ok() {
		t.Error("a dead guest and an untyped skip don't fail the row")
	}
	got := table([]row{r})
	for _, want := range []string{
		"| 6.1 (6.1.0-56) | 6.1.192-2 | yes | no: not built yet | not reported | no: verifier: too many \\| instructions | yes | offload | 12 s |",
		"ok, 1 passed, 0 skipped, 7 s", "exit code 125", "1 failed: TestE; exit code 2: panic: test timed out after 3m0s", "FAIL 0 s: 1 failed: TestD |", "TestC skips without a typed reason",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("lacks %q:\n%s", want, got)
		}
	}
}
