// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestOutcomeNames: the names are those of the C enums, in their order.
func TestOutcomeNames(t *testing.T) {
	for _, c := range []struct {
		file, enum, prefix string
		names              []string
	}{
		{"../bpf/dispatch_maps.h", "dispatch_outcome", "", dispatchOutcomes()},
		{"../bpf/splice_maps.h", "splice_outcome", "", spliceOutcomes()},
		{"../bpf/forward_maps.h", "forward_outcome", "forward_", forwardOutcomes()},
	} {
		source, err := os.ReadFile(c.file)
		if err != nil {
			t.Fatal(err)
		}
		_, body, _ := strings.Cut(string(source), "enum "+c.enum+" {")
		body, _, _ = strings.Cut(body, "};")
		var want []string
		for _, m := range regexp.MustCompile(`(?m)^\s*([A-Z_]+),`).FindAllStringSubmatch(body, -1) {
			want = append(want, strings.TrimPrefix(strings.ToLower(m[1]), c.prefix))
		}
		if len(want) == 0 || !slices.Equal(c.names, want[:len(want)-1]) { // the last one is their number
			t.Errorf("%s: %v, want %v", c.file, c.names, want)
		}
	}
}
