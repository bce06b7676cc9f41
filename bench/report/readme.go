// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"math"
	"os"
	"strings"

	"sluice/bench/result"
)

// The lines of README.md between which its figures stand.
const (
	figuresBegin = "<!-- figures: written by `make bench` and `make bench-report` -->\n"
	figuresEnd   = "<!-- end of figures -->\n"
)

// column is a contender of the table, under the name that it has there.
type column struct{ name, head string }

func columns(r *result.Run) []column {
	var list []column
	for _, c := range []column{{"direct", "direct"}, {"nginx", "nginx"}, {"haproxy", "HAProxy"}, {"nft", "nft (NAT)"},
		{"sluice-nat", "sluice, nat"}, {"sluice-offload", "sluice, offload"},
		{"sluice-splice", "sluice, splice"}, {"sluice-relay", "sluice, relay"}} {
		for _, took := range r.Contenders {
			if took.Name == c.name {
				list = append(list, c)
			}
		}
	}
	return list
}

// row is a line of the table: a figure for each contender, "" for none.
type row struct {
	text   string
	series string
	cell   func(s *result.Series, name string) string
}

func rows() []row {
	perDirect := func(s *result.Series, name string) string { return cell(s.Stat(s.Metric, name).Ratio, "%.2f") }
	median := func(metric, format string) func(*result.Series, string) string {
		return func(s *result.Series, name string) string { return cell(s.Stat(metric, name).Median, format) }
	}
	added := func(s *result.Series, name string) string {
		if name == "direct" {
			return ""
		}
		return cell(s.PerRound("p50", func(r map[string]float64) float64 {
			return (at(r, name) - at(r, "direct")) / (at(r, "nginx") - at(r, "direct"))
		}), "%.2f")
	}
	kib := func(s *result.Series, name string) string { return cell(s.Stat("kib5000", name).Median, "%.1f") }
	return []row{
		{"64-byte round trip added to direct, one core, x nginx's", "pingpong-pinned", added},
		{"requests/s, 64 keep-alive connections, x direct", "rps64", perDirect},
		{"connections/s, one request each, x direct", "connrate", perDirect},
		{"sessions/s of 20 messages each, x direct", "session20", perDirect},
		{"one bulk stream, x direct", "bulk1", perDirect},
		{"four bulk streams, x direct", "bulk4", perDirect},
		{"cores busy at 5000 requests/s, whole box", "cpu5000", median("box", "%.2f")},
		{"of these in the balancer's own process", "cpu5000", func(s *result.Series, name string) string {
			if name == "direct" || name == "nft" {
				return ""
			}
			return median("own", "%.2f")(s, name)
		}},
		{"memory of an idle session, KiB", "memory", kib},
		{"of one that was in use", "memory-used", kib},
		{"live update with 1000 backends: longest stall, ms; connections lost", "update", func(s *result.Series, name string) string {
			if name == "direct" {
				return ""
			}
			return cell(s.Stat("stall", name).Median, "%.1f") + "; " + cell(s.Stat("lost", name).Median, "%.0f")
		}},
	}
}

func at(round map[string]float64, name string) float64 {
	if v, ok := round[name]; ok {
		return v
	}
	return math.NaN()
}

func cell(v float64, format string) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return ""
	}
	return fmt.Sprintf(format, v)
}

// Readme puts the run's main figures into README.md, between the two lines that
// mark their place.
func Readme(r *result.Run, path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	head, rest, ok := strings.Cut(string(data), figuresBegin)
	_, tail, ok2 := strings.Cut(rest, figuresEnd)
	if !ok || !ok2 {
		return fmt.Errorf("%s: it needs the lines %q and %q around its figures", path, strings.TrimSpace(figuresBegin), strings.TrimSpace(figuresEnd))
	}
	return os.WriteFile(path, []byte(head+figuresBegin+figures(r)+figuresEnd+tail), 0o644)
}

func figures(r *result.Run) string {
	var out strings.Builder
	rounds := 0
	for _, s := range r.Series {
		for _, sample := range s.Samples {
			rounds = max(rounds, sample.Round+1)
		}
	}
	fmt.Fprintf(&out, "%s; %d cores shared by client, balancer and backends, Linux %s, %s everywhere; medians of %d alternating rounds:\n\n|",
		r.Started.UTC().Format("2006-01-02"), r.Machine.Cores, r.Machine.Kernel, r.Machine.Congestion, rounds)
	cols := columns(r)
	for _, c := range cols {
		out.WriteString(" | " + c.head)
	}
	out.WriteString(" |\n|---|" + strings.Repeat("--:|", len(cols)) + "\n")
	for _, row := range rows() {
		s := r.Find(row.series)
		if s == nil {
			continue
		}
		out.WriteString("| " + row.text)
		for _, c := range cols {
			out.WriteString(" | " + row.cell(s, c.name))
		}
		out.WriteString(" |\n")
	}
	return out.String()
}
