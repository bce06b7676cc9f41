// SPDX-License-Identifier: Apache-2.0

package result

import (
	"fmt"
	"math"
)

// Goal is one promise of the design, and whether this run kept it.
type Goal struct {
	What    string  // the workload, in words
	Variant string  // the contender
	Promise string  // in words
	Value   float64 // NaN: not measured
	Limit   float64
	Most    bool // Value must be at most Limit; else at least
	Unit    string
}

// State is met, not met, or not measured.
func (g Goal) State() string {
	switch {
	case math.IsNaN(g.Value):
		return "not measured"
	case g.Most && g.Value <= g.Limit, !g.Most && g.Value >= g.Limit:
		return "met"
	default:
		return "not met"
	}
}

// rule is a goal before it is applied to a run.
type rule struct {
	series, metric, what, promise string
	limit                         map[string]float64 // by variant
	most                          bool
	unit                          string
	value                         func(round map[string]float64, variant string) float64
}

const (
	splice = "sluice-splice"
	relay  = "sluice-relay"
	nat    = "sluice-nat"
)

func overDirect(r map[string]float64, v string) float64 { return get(r, v) / get(r, direct) }

// overBetter is the ratio to the better of the peers where more is better.
func overBetter(r map[string]float64, v string) float64 {
	return get(r, v) / math.Max(get(r, "nginx"), get(r, "haproxy"))
}

// addedOverNginx is what v adds to direct, over what nginx adds.
func addedOverNginx(r map[string]float64, v string) float64 {
	return (get(r, v) - get(r, direct)) / (get(r, "nginx") - get(r, direct))
}

func plain(r map[string]float64, v string) float64 { return get(r, v) }

func rules() []rule {
	sr := func(s, r float64) map[string]float64 { return map[string]float64{splice: s, relay: r} }
	onlyNat := func(n float64) map[string]float64 { return map[string]float64{nat: n} }
	return []rule{
		{"pingpong-pinned", "p50", "64-byte latency p50, one core", "added over direct, x what nginx adds", sr(0.6, 1.0), true, "x", addedOverNginx},
		{"pingpong-pinned", "p50", "64-byte latency p50, one core", "x direct", onlyNat(1.05), true, "x", overDirect},
		{"rps64", "rps", "requests/s, 64 keep-alive connections", "x the better peer", sr(1.15, 1.0), false, "x", overBetter},
		{"rps64", "rps", "requests/s, 64 keep-alive connections", "x direct", onlyNat(.97), false, "x", overDirect},
		{"bulk1", "gbits", "bulk, one stream", "x the better peer", sr(1.3, 1.0), false, "x", overBetter},
		{"bulk1", "gbits", "bulk, one stream", "x direct", onlyNat(1.0), false, "x", overDirect},
		{"bulk4", "gbits", "bulk, four streams", "x the better peer", sr(1.5, 1.0), false, "x", overBetter},
		{"bulk4", "gbits", "bulk, four streams", "x direct", onlyNat(1.0), false, "x", overDirect},
		{"cpu5000", "box", "CPU of the box at 5000 requests/s", "added over direct, x what nginx adds", map[string]float64{splice: .35, relay: 1, nat: .1}, true, "x", addedOverNginx},
		{"connrate", "conns", "connections/s, one request each", "x the better peer", sr(1.2, 1.2), false, "x", overBetter},
		{"connrate", "conns", "connections/s, one request each", "x direct", onlyNat(.95), false, "x", overDirect},
		{"memory", "kib5000", "own memory of an idle session, 5000 sessions", "KiB", map[string]float64{splice: 2, relay: 2, nat: .5}, true, "KiB", plain},
		{"update", "stall", "live update, 1000 backends: longest stall", "ms", map[string]float64{splice: 10, relay: 10, nat: 10}, true, "ms", plain},
		{"update", "lost", "live update, 1000 backends: connections lost", "connections", map[string]float64{splice: 0, relay: 0, nat: 0}, true, "", plain},
	}
}

// Goals applies the design's goals to the run: those of the datapaths that took part.
func (r *Run) Goals() []Goal {
	took := map[string]bool{}
	for _, c := range r.Contenders {
		took[c.Name] = true
	}
	var goals []Goal
	for _, variant := range []string{nat, splice, relay} {
		if !took[variant] {
			continue
		}
		for _, rule := range rules() {
			limit, ok := rule.limit[variant]
			if !ok {
				continue
			}
			g := Goal{What: rule.what, Variant: variant, Promise: rule.promise, Limit: limit, Most: rule.most, Unit: rule.unit, Value: math.NaN()}
			if s := r.Find(rule.series); s != nil {
				g.Value = s.PerRound(rule.metric, func(round map[string]float64) float64 { return rule.value(round, variant) })
			}
			goals = append(goals, g)
		}
	}
	return goals
}

// Want is the limit in words.
func (g Goal) Want() string {
	sign := ">="
	if g.Most {
		sign = "<="
	}
	return fmt.Sprintf("%s %g %s", sign, g.Limit, g.Promise)
}

// Got is the value with its unit.
func (g Goal) Got() string {
	switch {
	case math.IsNaN(g.Value):
		return "-"
	case g.Unit == "":
		return fmt.Sprintf("%g", g.Value)
	default:
		return fmt.Sprintf("%.2f %s", g.Value, g.Unit)
	}
}
