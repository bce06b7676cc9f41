// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/bench/result"
)

func run() *result.Run {
	values := func(v float64) map[string]float64 { return map[string]float64{"conns": v} }
	r := &result.Run{Version: result.Version, Mode: "full", Contenders: []result.Contender{{Name: "nginx", Version: "nginx/1"}, {Name: "sluice-relay"}}}
	for i, name := range []string{"connrate", "connrate-b2", "connrate-b16"} {
		s := &result.Series{Name: name, Title: "Connections", Metric: "conns", Unit: "1/s", More: true}
		for round := range 3 {
			s.Samples = append(s.Samples,
				result.Sample{Round: round, Contender: "direct", Values: values(float64(1000 + round - i))},
				result.Sample{Round: round, Contender: "nginx", Values: values(500), Marks: []string{"client-bound"}},
				result.Sample{Round: round, Contender: "sluice-relay", Error: "it | broke"})
		}
		r.Series = append(r.Series, s)
	}
	return r
}

func TestDocs(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "benchmarks"), 0o755); err != nil {
		t.Fatal(err)
	}
	stale := filepath.Join(dir, "benchmarks", "stale.svg")
	if err := os.WriteFile(stale, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	vm := run()
	vm.Mode = "vm"
	if err := Docs(run(), vm, dir); err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile(filepath.Join(dir, "benchmarks.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| nginx | 500 | 500 .. 500 | 0.50 | client-bound |", `FAILED 3 of 3: it \| broke`, "## Goals", "- nginx: nginx/1", "(benchmarks/connrate.svg)", "(benchmarks/growth.svg)", "Mode: vm."} {
		if !bytes.Contains(doc, []byte(want)) {
			t.Errorf("no %q in\n%s", want, doc)
		}
	}
	for _, name := range []string{"connrate", "connrate-b16", "growth"} {
		svg, err := os.ReadFile(filepath.Join(dir, "benchmarks", name+".svg"))
		if err != nil || !bytes.Contains(svg, []byte("<svg")) {
			t.Errorf("%s.svg: %v", name, err)
		}
	}
	if _, err := os.Stat(stale); !os.IsNotExist(err) {
		t.Errorf("the plot of a workload that is no more is still there: %v", err)
	}
}

func TestTerminalNamesContendersAndFailures(t *testing.T) {
	var out strings.Builder
	Table(&out, run().Series[0])
	for _, want := range []string{"direct", "nginx", "sluice-relay", "0.50", "FAILED 3 of 3"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestDiffer(t *testing.T) {
	low, high := []float64{1, 2, 3, 4, 5, 6}, []float64{11, 12, 13, 14, 15, 16}
	if d := Differ(low, high); !d.Significant() || d.A != 3.5 || d.B != 13.5 {
		t.Errorf("sets apart: %+v", d)
	}
	if d := Differ(low, []float64{1.5, 2.5, 3.5, 2, 4, 5.5}); d.Significant() {
		t.Errorf("mingled sets: %+v", d)
	}
	if d := Differ(low[:3], high[:3]); d.Significant() {
		t.Errorf("three samples a side can't tell: %+v", d)
	}
}

func TestReadmeGetsTheFiguresAndKeepsTheRest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "README.md")
	text := "before\n" + figuresBegin + "old\n" + figuresEnd + "after\n"
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	r := run()
	r.Contenders = append(r.Contenders, result.Contender{Name: "direct"})
	for range 2 { // the second time finds what the first has left
		if err := Readme(r, path); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"before\n" + figuresBegin, figuresEnd + "after\n", "| | direct | nginx | sluice, relay |",
		"| connections/s, one request each, x direct | 1.00 | 0.50 |  |"} {
		if !strings.Contains(string(got), want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(string(got), "old") {
		t.Errorf("the old figures are still there:\n%s", got)
	}
	if err := os.WriteFile(path, []byte("no marks"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Readme(r, path); err == nil {
		t.Error("a README without a place for figures is no error")
	}
}

func TestSideBySide(t *testing.T) {
	series := func(name, beside string, direct, nginx, relay float64) *result.Series {
		s := &result.Series{Name: name, Metric: "rps", Unit: "1/s", More: true, Beside: beside}
		for name, v := range map[string]float64{"direct": direct, "nginx": nginx, "haproxy": 1, "sluice-relay": relay} {
			s.Samples = append(s.Samples, result.Sample{Contender: name, Values: map[string]float64{"rps": v}})
		}
		return s
	}
	r := &result.Run{Machine: result.Machine{Congestion: "reno"},
		Series: []*result.Series{series("rps64", "", 100, 50, 48), series("rps64-bbr", "rps64", 80, 40, 30), series("connrate", "", 1, 1, 1)}}
	var out, doc strings.Builder
	SideBySide(&out, r)
	sideBySideTable(&doc, r)
	for _, want := range []string{"reno and bbr", "sluice-relay", "0.96", "0.75"} {
		if !strings.Contains(out.String(), want) || !strings.Contains(doc.String(), want) {
			t.Errorf("no %q in\n%s\n%s", want, out.String(), doc.String())
		}
	}
	if want := "| rps64 | sluice-relay | 48.0 | 30.0 | 0.48 | 0.38 | 0.96 | 0.75 |"; !strings.Contains(doc.String(), want) {
		t.Errorf("no %q in\n%s", want, doc.String())
	}
	if strings.Contains(out.String(), "connrate") {
		t.Errorf("a workload of one congestion control alone is there:\n%s", out.String())
	}
	out.Reset()
	SideBySide(&out, &result.Run{Series: r.Series[:1]})
	if out.Len() > 0 {
		t.Errorf("nothing to compare, and yet: %s", out.String())
	}
}
