// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"io"

	"sluice/bench/result"
)

// Machine prints where and what is measured.
func Machine(out io.Writer, r *result.Run) {
	for _, line := range describe(r) {
		fmt.Fprintln(out, line)
	}
}

func describe(r *result.Run) []string {
	m := r.Machine
	box := fmt.Sprintf("%s, %d cores, %.1f GiB", m.CPU, m.Cores, m.MemoryGiB)
	if m.Hypervisor != "" {
		box += ", virtual machine"
	}
	lines := []string{
		"machine: " + box,
		fmt.Sprintf("system: %s, Linux %s, mitigations active: %s", m.OS, m.Kernel, m.Mitigations),
		fmt.Sprintf("before the run: load %s, %.2f cores busy", m.Load, m.IdleBusy),
		fmt.Sprintf("sluice: %s, %s", r.Commit, m.Go),
	}
	for _, c := range r.Contenders {
		if c.Version != "" {
			lines = append(lines, fmt.Sprintf("%s: %s", c.Name, c.Version))
		}
	}
	return lines
}
