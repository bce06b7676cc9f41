// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"testing"

	// What the binary is made of, so that go test's cache knows when it changes.
	_ "sluice/demo"
	_ "sluice/service"
)

// TestSources reads what can't be imported, for the same reason: a file that a
// test has read is part of what its cached result depends on.
func TestSources(t *testing.T) {
	files, err := filepath.Glob("../cmd/sluice/*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no sources of the command: %v", err)
	}
	for _, f := range files {
		if _, err := os.ReadFile(f); err != nil {
			t.Error(err)
		}
	}
}
