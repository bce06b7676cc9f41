// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"sluice/bench/result"
)

// pair is a line of the comparison of two congestion controls.
type pair struct {
	series, contender string
	a, b              result.Stat
	peerA, peerB      string // against the peers, for what isn't one
}

// pairs are the workloads that the run has under two congestion controls.
func pairs(r *result.Run) []pair {
	var list []pair
	for _, b := range r.Series {
		a := r.Find(b.Beside)
		if a == nil {
			continue
		}
		for _, name := range Order(b) {
			p := pair{series: a.Name, contender: name, a: a.Stat(a.Metric, name), b: b.Stat(b.Metric, name)}
			if strings.HasPrefix(name, "sluice-") {
				p.peerA, p.peerB = Ratio(a.OverPeers(name)), Ratio(b.OverPeers(name))
			}
			list = append(list, p)
		}
	}
	return list
}

// SideBySide prints what was measured under the usual congestion control and
// under another: figures, and what they are against the peers in the same
// rounds (the better one's; of a latency, what is added to direct over what
// nginx adds).
func SideBySide(out io.Writer, r *result.Run) {
	list := pairs(r)
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(out, "\n%s and bbr, side by side\n", r.Machine.Congestion)
	tab := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tab, "workload\tcontender\t%[1]s\tbbr\tx direct, %[1]s\tbbr\tx peers, %[1]s\tbbr\n", r.Machine.Congestion)
	for _, p := range list {
		fmt.Fprintf(tab, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.series, p.contender, Number(p.a.Median), Number(p.b.Median),
			Ratio(p.a.Ratio), Ratio(p.b.Ratio), p.peerA, p.peerB)
	}
	tab.Flush()
}

func sideBySideTable(doc *strings.Builder, r *result.Run) {
	list := pairs(r)
	if len(list) == 0 {
		return
	}
	cc := r.Machine.Congestion
	fmt.Fprintf(doc, "\n## %[1]s and bbr, side by side\n\n%[2]s\n\n| workload | contender | %[1]s | bbr | x direct, %[1]s | bbr | x peers, %[1]s | bbr |\n|---|---|--:|--:|--:|--:|--:|--:|\n", cc, besideText)
	for _, p := range list {
		fmt.Fprintf(doc, "| %s | %s | %s | %s | %s | %s | %s | %s |\n", p.series, p.contender, Number(p.a.Median), Number(p.b.Median),
			Ratio(p.a.Ratio), Ratio(p.b.Ratio), p.peerA, p.peerB)
	}
}

const besideText = "On all hosts. \"x peers\" is against the better of nginx and HAProxy in the same rounds; of a latency it is what is added to\n" +
	"direct, over what nginx adds."
