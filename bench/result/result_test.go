// SPDX-License-Identifier: Apache-2.0

package result

import (
	"math"
	"slices"
	"testing"
	"time"
)

func sample(round int, contender, metric string, v float64) Sample {
	return Sample{Round: round, Contender: contender, Values: map[string]float64{metric: v}}
}

func TestStatTakesRatiosWithinRounds(t *testing.T) {
	s := &Series{Name: "rps64", Metric: "rps", More: true, Samples: []Sample{
		sample(0, "direct", "rps", 100), sample(0, "nginx", "rps", 50),
		sample(1, "direct", "rps", 10), sample(1, "nginx", "rps", 6), // a slow moment of the machine
		sample(2, "direct", "rps", 100), sample(2, "nginx", "rps", 70),
		{Round: 3, Contender: "nginx", Values: map[string]float64{"rps": 1e9}, Error: "it failed"},
	}}
	st := s.Stat("rps", "nginx")
	if st.N != 3 || st.Median != 50 || st.Min != 6 || st.Max != 70 || st.Ratio != .6 || len(st.Errors) != 1 {
		t.Errorf("got %+v", st)
	}
	if st := s.Stat("rps", "haproxy"); st.N != 0 || !math.IsNaN(st.Median) || !math.IsNaN(st.Ratio) {
		t.Errorf("of one that took no part: %+v", st)
	}
}

func TestGoals(t *testing.T) {
	latency := &Series{Name: "pingpong-pinned", Metric: "p50", Samples: []Sample{
		sample(0, "direct", "p50", 10), sample(0, "nginx", "p50", 30), sample(0, "sluice-splice", "p50", 22), sample(0, "sluice-relay", "p50", 31)}}
	bulk := &Series{Name: "bulk4", Metric: "gbits", More: true, Samples: []Sample{
		sample(0, "direct", "gbits", 12), sample(0, "nginx", "gbits", 10), sample(0, "haproxy", "gbits", 8),
		sample(0, "sluice-offload", "gbits", 11), sample(0, "sluice-splice", "gbits", 10.5), sample(0, "sluice-relay", "gbits", 11)}}
	short := &Series{Name: "session20", Metric: "conns", More: true, Samples: []Sample{
		sample(0, "direct", "conns", 30), sample(0, "nginx", "conns", 10), sample(0, "haproxy", "conns", 8),
		sample(0, "sluice-offload", "conns", 12), sample(0, "sluice-splice", "conns", 9), sample(0, "sluice-relay", "conns", 10)}}
	r := &Run{Series: []*Series{latency, bulk, short}, Contenders: []Contender{{Name: "sluice-offload"}, {Name: "sluice-splice"}, {Name: "sluice-relay"}}}
	want := map[string]string{
		"sluice-splice " + "64-byte latency p50, one core":  "met",     // adds 12 where nginx adds 20
		"sluice-relay " + "64-byte latency p50, one core":   "not met", // adds 21
		"sluice-offload " + "bulk, four streams":            "not met", // less than direct
		"sluice-splice " + "bulk, four streams":             "not met", // 1.05 of the better
		"sluice-offload " + "sessions/s, 20 messages each":  "met",
		"sluice-splice " + "sessions/s, 20 messages each":   "not met",
		"sluice-relay " + "sessions/s, 20 messages each":    "met",
		"sluice-offload " + "descriptors of such a session": "not measured",
		"sluice-relay " + "bulk, four streams":              "met",
		"sluice-relay " + "bulk, one stream":                "not measured",
	}
	for _, g := range r.Goals() {
		key := g.Variant + " " + g.What
		if w, ok := want[key]; ok && g.State() != w {
			t.Errorf("%s: %s (%g, %s), want %s", key, g.State(), g.Value, g.Want(), w)
		}
		delete(want, key)
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
	for _, g := range (&Run{Series: []*Series{short}}).Goals() {
		t.Errorf("a goal of a datapath that took no part: %+v", g)
	}
}

// One figure has one goal for a datapath.
func TestGoalsNameDatapathsOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range rules() {
		for variant := range r.limit {
			key := variant + " " + r.series + " " + r.metric
			if seen[key] {
				t.Errorf("two goals for %s", key)
			}
			seen[key] = true
		}
	}
}

func TestSaveAndLoad(t *testing.T) {
	dir := t.TempDir()
	r := &Run{Version: Version, Mode: "full", Started: time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC), Series: []*Series{{Name: "x", Samples: []Sample{sample(0, "direct", "v", 1.5)}}}}
	path, err := r.Save(dir)
	if err != nil {
		t.Fatal(err)
	}
	back, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := back.Find("x").Stat("v", "direct").Median; got != 1.5 {
		t.Errorf("after a save and a load: %g", got)
	}
	r.Version++
	if path, err = r.Save(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil {
		t.Error("a file of another form was read")
	}
}

func TestCompleteFillsWhatARunLacks(t *testing.T) {
	ok, bad := Sample{Contender: "nginx", Values: map[string]float64{"x": 1}}, Sample{Contender: "nginx", Error: "no"}
	r := &Run{Notes: []string{"c was left out: out of time", "kept"}, Machine: Machine{Congestion: "cubic"}, Series: []*Series{
		{Name: "a", Samples: []Sample{ok}}, {Name: "b", Samples: []Sample{ok, bad}}}}
	names := []string{"a", "c", "b"}
	if got := r.Lacks(names); !slices.Equal(got, []string{"c", "b"}) {
		t.Errorf("lacks %v", got)
	}
	later := &Run{Commit: "abc", Machine: Machine{Congestion: "cubic"}, Series: []*Series{{Name: "b", Samples: []Sample{ok}}, {Name: "c", Samples: []Sample{ok}}}}
	r.Complete(later, names)
	var order []string
	for _, s := range r.Series {
		order = append(order, s.Name)
	}
	if !slices.Equal(order, names) || len(r.Lacks(names)) != 0 {
		t.Errorf("series %v, lacks %v", order, r.Lacks(names))
	}
	if !slices.Equal(r.Notes, []string{"kept", "measured in a later run, of abc: b, c"}) {
		t.Errorf("notes %q", r.Notes)
	}
}

func TestOverPeers(t *testing.T) {
	rate := &Series{Name: "rps64", Metric: "rps", More: true, Samples: []Sample{
		sample(0, "nginx", "rps", 50), sample(0, "haproxy", "rps", 80), sample(0, "sluice-relay", "rps", 40)}}
	if got := rate.OverPeers("sluice-relay"); got != .5 {
		t.Errorf("a rate of 40 beside 50 and 80 is %g of the better peer's, want 0.5", got)
	}
	latency := &Series{Name: "pingpong", Metric: "p50", Samples: []Sample{
		sample(0, "direct", "p50", 10), sample(0, "nginx", "p50", 30), sample(0, "sluice-relay", "p50", 25)}}
	if got := latency.OverPeers("sluice-relay"); got != .75 {
		t.Errorf("15 added where nginx adds 20 is %g, want 0.75", got)
	}
	if got := latency.OverPeers("sluice-nat"); !math.IsNaN(got) {
		t.Errorf("of one that took no part: %g", got)
	}
}
