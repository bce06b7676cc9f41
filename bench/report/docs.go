// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sluice/bench/result"
)

// Docs writes dir/benchmarks.md and its plots, in dir/benchmarks. vm is a run on
// another kernel; nil: none.
func Docs(r, vm *result.Run, dir string) error {
	plots := filepath.Join(dir, "benchmarks")
	if err := os.MkdirAll(plots, 0o755); err != nil {
		return err
	}
	// Those of workloads that are no more would stay otherwise.
	old, err := filepath.Glob(filepath.Join(plots, "*.svg"))
	if err != nil {
		return err
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	var doc strings.Builder
	doc.WriteString(head)
	about(&doc, r)
	doc.WriteString("\n## Goals\n\n")
	goalTable(&doc, r.Goals())
	sideBySideTable(&doc, r)
	doc.WriteString("\n## Results\n")
	for _, s := range r.Series {
		seriesTable(&doc, s)
		ok, err := bars(s, filepath.Join(plots, s.Name+".svg"))
		if err != nil {
			return fmt.Errorf("plot of %s: %w", s.Name, err)
		}
		if ok {
			fmt.Fprintf(&doc, "\n![%s](benchmarks/%s.svg)\n", s.Title, s.Name)
		}
	}
	ok, err := growth(r, filepath.Join(plots, "growth.svg"))
	if err != nil {
		return fmt.Errorf("plot of growth: %w", err)
	}
	if ok {
		doc.WriteString("\n### How connections per second depend on the number of backends\n\n![growth](benchmarks/growth.svg)\n")
	}
	if vm != nil {
		doc.WriteString(vmHead)
		about(&doc, vm)
		doc.WriteByte('\n')
		goalTable(&doc, slices.DeleteFunc(vm.Goals(), func(g result.Goal) bool { return math.IsNaN(g.Value) }))
		for _, s := range vm.Series {
			seriesTable(&doc, s)
		}
	}
	return os.WriteFile(filepath.Join(dir, "benchmarks.md"), []byte(doc.String()), 0o644)
}

// about says when, where and on what a run was made.
func about(doc *strings.Builder, r *result.Run) {
	fmt.Fprintf(doc, "\nMeasured on %s, in %.0f minutes. Mode: %s.\n\n", r.Started.UTC().Format("2006-01-02"), r.Seconds/60, r.Mode)
	for _, line := range describe(r) {
		fmt.Fprintf(doc, "- %s\n", line)
	}
	if r.Machine.Congestion != "" {
		fmt.Fprintf(doc, "- TCP congestion control on all hosts: %s\n", r.Machine.Congestion)
	}
	for _, note := range r.Notes {
		fmt.Fprintf(doc, "- note: %s\n", note)
	}
}

const vmHead = `
## On a distribution's kernel, in QEMU

` + "`make bench-vm`" + ` repeats the main workloads in a virtual machine, where IPVS is to be had. Without KVM it is emulated: then
waking an idle core, a cache and a branch cost what QEMU makes of them, and the ratios are nearly those of instructions.
`

const head = `<!-- Written by ` + "`make bench`" + `; ` + "`make bench-report`" + ` writes it again from bench/results. Don't edit it. -->
# Benchmarks

` + "`make bench`" + ` measures sluice beside nginx (` + "`stream`" + `), HAProxy (` + "`mode tcp`" + `), the kernel's own NAT (nft) and a direct connection, on one machine: client,
balancer and backends are network namespaces joined by veth pairs, each contender in a balancer namespace of its own.
Direct is the same path with a balancer host that only routes. Peers run with a worker a core; their configurations are in
[bench/peers](../bench/peers). Contenders take turns in each round; a figure is the median over the rounds, "x direct" the
median of the ratios to direct within a round. Read ratios rather than figures: all hosts share the machine's cores, and the
veth pairs have neither a wire's latency nor its limit. The load generator drops bulk data without copying it, so that less of
the time is its own. A latency is that of a round trip; one sent on schedule counts from when it was due.

Remarks: *client-bound* means that a thread of the client was busy all the time (*server-bound*: iperf3's server), *rate not held* that fewer requests were sent
than meant, *other load* that the machine was not idle; such a figure says more about the harness than about the contender.
A run of short connections fails, instead of giving a figure, if a connection failed, a port was lacking, an accept queue
overflowed, connection tracking had no room, or sockets in TIME_WAIT took 80 % of the ports.
Of sluice's ` + "`offload`" + ` the remarks say how many sessions were handed over to the kernel, and after how many bytes, both directions together, as
its access log has it. The log is written during the measurement, which no other contender's is.
nft only rewrites packets: it has no log, no retries, no half-close to care for; it is what sluice's ` + "`nat`" + ` will be measured by.
The last workloads are run by other load tools (sockperf, iperf3, wrk) through the same contenders, to check the harness's own.
`

func goalTable(doc *strings.Builder, goals []result.Goal) {
	doc.WriteString("| datapath | what | measured | wanted | |\n|---|---|---|---|---|\n")
	for _, g := range goals {
		fmt.Fprintf(doc, "| %s | %s | %s | %s | %s |\n", strings.TrimPrefix(g.Variant, "sluice-"), g.What, g.Got(), g.Want(), g.State())
	}
}

func seriesTable(doc *strings.Builder, s *result.Series) {
	fmt.Fprintf(doc, "\n### %s\n\n| contender | %s | min .. max | x direct |", s.Title, s.Unit)
	rule := "|---|--:|--:|--:|"
	for _, m := range s.Extra {
		fmt.Fprintf(doc, " %s, %s |", m.Name, m.Unit)
		rule += "--:|"
	}
	fmt.Fprintf(doc, " remarks |\n%s---|\n", rule)
	for _, name := range Order(s) {
		st := s.Stat(s.Metric, name)
		fmt.Fprintf(doc, "| %s | %s | %s .. %s | %s |", name, Number(st.Median), Number(st.Min), Number(st.Max), Ratio(st.Ratio))
		for _, m := range s.Extra {
			fmt.Fprintf(doc, " %s |", Number(s.Stat(m.Name, name).Median))
		}
		fmt.Fprintf(doc, " %s |\n", strings.ReplaceAll(Remarks(st), "|", "\\|"))
	}
}
