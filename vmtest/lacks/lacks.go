// SPDX-License-Identifier: Apache-2.0

// Package lacks is how a test says what the kernel it runs on can't do, in words
// that `make vmtest` understands.
package lacks

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"sluice/vmtest/expect"
)

// Skip skips the test because this kernel or machine lacks a feature (a word, as
// in vmtest/expect/skips). In a guest of vmtest the test fails instead if the
// kernel should have it. Where a fallback exists, assert the fallback and its
// message rather than skip.
func Skip(t testing.TB, feature, why string) {
	t.Helper()
	if kernel := os.Getenv("SLUICE_VM_KERNEL"); kernel != "" {
		if err := expect.Allowed(kernel, feature); err != nil {
			t.Fatalf("skip refused: %v: %s", err, why)
		}
	}
	t.Skipf("%s%s: %s", expect.SkipPrefix, feature, why)
}

// Report writes the line that the table of docs/kernels.md is made from: whether
// this kernel does a datapath (dispatch, splice, nat, relay), and if not, why.
func Report(w io.Writer, datapath string, ok bool, reason string) error {
	answer := "no"
	if ok {
		answer = "yes"
	}
	_, err := fmt.Fprintf(w, "%s%s %s %s\n", expect.FeaturePrefix, datapath, answer, strings.ReplaceAll(reason, "\n", "; "))
	return err
}
