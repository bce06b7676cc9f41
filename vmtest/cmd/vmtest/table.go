// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"time"

	"sluice/vmtest/expect"
)

// cell is one job on one kernel.
type cell struct {
	name            string
	wall            time.Duration
	code            int
	passed, skipped int
	complaints      []string
}

func (c cell) verdict() string {
	if len(c.complaints) > 0 {
		return "FAIL"
	}
	return "ok"
}

// row is one kernel.
type row struct {
	kernel, version, release string
	features                 map[string]expect.Feature
	safe                     []string // what the self-test finds safe
	cells                    []cell
	wall                     time.Duration
}

func (r row) ok() bool {
	for _, c := range r.cells {
		if len(c.complaints) > 0 {
			return false
		}
	}
	return true
}

// datapaths are the table's columns.
var datapaths = [...]string{"dispatch", "nat", "offload", "splice", "relay"}

// table is docs/kernels.md.
func table(rows []row) string {
	var b strings.Builder
	b.WriteString("# Kernels\n\nWritten by `make vmtest`: don't edit. What each kernel can do, by `sluice doctor` and the tests run on it\n" +
		"in a virtual machine; an empty cell has the reason.\n\n")
	b.WriteString("| kernel | package | dispatch | nat | offload | splice | relay | self-tests passed | wall time |\n|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s (%s) | %s |", r.kernel, r.release, r.version)
		for _, d := range datapaths {
			fmt.Fprintf(&b, " %s |", r.feature(d))
		}
		self := "none"
		if len(r.safe) > 0 {
			self = strings.Join(r.safe, ", ")
		}
		fmt.Fprintf(&b, " %s | %.0f s |\n", self, r.wall.Seconds())
	}
	b.WriteString("\n## Suites\n\nTests passed, skipped, and the time with the boot.\n\n| kernel |")
	if len(rows) > 0 {
		for _, c := range rows[0].cells {
			fmt.Fprintf(&b, " %s |", c.name)
		}
		b.WriteString("\n|---" + strings.Repeat("|---", len(rows[0].cells)) + "|\n")
	}
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s |", r.kernel)
		for _, c := range r.cells {
			fmt.Fprintf(&b, " %s |", c.text())
		}
		b.WriteString("\n")
	}
	return b.String()
}

// feature is a cell of the table: yes, or why not.
func (r row) feature(datapath string) string {
	f, ok := r.features[datapath]
	switch {
	case !ok:
		return "not reported"
	case f.OK:
		return "yes"
	case f.Reason == "":
		return "no (no reason given)"
	}
	return "no: " + strings.ReplaceAll(f.Reason, "|", "\\|")
}

func (c cell) text() string {
	s := fmt.Sprintf("%s %.0f s", c.verdict(), c.wall.Seconds())
	if c.passed+c.skipped > 0 {
		s = fmt.Sprintf("%s, %d passed, %d skipped, %.0f s", c.verdict(), c.passed, c.skipped, c.wall.Seconds())
	}
	if len(c.complaints) > 0 {
		s += ": " + strings.ReplaceAll(strings.Join(c.complaints, "; "), "|", "\\|")
	}
	return s
}
