// SPDX-License-Identifier: Apache-2.0

// Package expect knows what each kernel may lack, and reads out of a test
// binary's verbose output what was skipped and what was found. Pure.
package expect

import (
	_ "embed"
	"fmt"
	"strings"
)

// Prefixes of the lines that tests print for machines.
const (
	SkipPrefix    = "sluice-lacks: "
	FeaturePrefix = "sluice-feature: "
)

//go:embed skips
var list string

// Allowed says, by an error, that a test may not skip for this feature on this kernel.
func Allowed(kernel, feature string) error {
	for line := range strings.Lines(list) {
		line, _, _ = strings.Cut(line, "#")
		if f := strings.Fields(line); len(f) >= 3 && f[0] == kernel && f[1] == feature {
			return nil
		}
	}
	return fmt.Errorf("kernel %s should have %q, by vmtest/expect/skips", kernel, feature)
}

// Skip is a test that was skipped.
type Skip struct{ Test, Feature, Why string }

// Feature is what was found about a datapath.
type Feature struct {
	Datapath string
	OK       bool
	Reason   string
}

// Output is what a verbose run said.
type Output struct {
	Skips    []Skip
	Features []Feature
	Passed   int
	Failed   []string
}

// Parse reads the output of a test binary run with -test.v.
func Parse(text string) Output {
	var o Output
	current := ""
	last := map[string]string{} // what each test said last
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if _, rest, ok := strings.Cut(line, FeaturePrefix); ok {
			o.feature(rest)
			continue
		}
		kind, rest, _ := strings.Cut(line, ": ")
		name, _, _ := strings.Cut(rest, " ")
		switch kind {
		case "--- PASS":
			o.Passed++
		case "--- FAIL":
			o.Failed = append(o.Failed, name)
		case "--- SKIP":
			s := Skip{Test: name, Why: last[name]}
			if _, typed, ok := strings.Cut(last[name], SkipPrefix); ok {
				s.Feature, s.Why, _ = strings.Cut(typed, ": ")
			}
			o.Skips = append(o.Skips, s)
		default:
			if f := strings.Fields(line); len(f) == 3 && f[0] == "===" {
				current = f[2]
			} else if line != "" {
				last[current] = line
			}
		}
	}
	return o
}

func (o *Output) feature(rest string) {
	f := strings.SplitN(rest, " ", 3)
	if len(f) < 2 || f[1] != "yes" && f[1] != "no" {
		return
	}
	found := Feature{Datapath: f[0], OK: f[1] == "yes"}
	if len(f) == 3 {
		found.Reason = strings.TrimSpace(f[2])
	}
	o.Features = append(o.Features, found)
}

// Complaints are what is wrong with the skips on a kernel: without a typed
// reason, or for a feature that the kernel should have.
func (o *Output) Complaints(kernel string) []string {
	var all []string
	for _, s := range o.Skips {
		if s.Feature == "" {
			all = append(all, fmt.Sprintf("%s skips without a typed reason (lacks.Skip): %s", s.Test, s.Why))
		} else if err := Allowed(kernel, s.Feature); err != nil {
			all = append(all, fmt.Sprintf("%s skips: %v: %s", s.Test, err, s.Why))
		}
	}
	return all
}
