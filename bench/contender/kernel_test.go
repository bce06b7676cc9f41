// SPDX-License-Identifier: Apache-2.0

package contender

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// IPVS itself is only to be had in a virtual machine (`make bench-vm`).
func TestRulesOfIPVS(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ipvs.rules")
	c := &Contender{Name: "ipvs", template: "ipvs.rules.tmpl"}
	if err := c.WriteConfig(path, 2); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := "-A -t 198.18.101.2:9000 -s rr\n" +
		"-a -t 198.18.101.2:9000 -r 198.19.0.1:9000 -m\n" +
		"-a -t 198.18.101.2:9000 -r 198.19.0.2:9000 -m\n"
	if !strings.HasPrefix(string(got), want) || strings.Count(string(got), "-A ") != 4 {
		t.Errorf("rules:\n%s\nwant them to begin with\n%s", got, want)
	}
}
