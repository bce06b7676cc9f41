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
	nat     = "sluice-nat"
	offload = "sluice-offload"
	splice  = "sluice-splice"
	relay   = "sluice-relay"
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

// OverPeers is a contender's main metric against the peers', by the median over
// the rounds: where more is better against the better of nginx and HAProxy, else
// what it adds to direct over what nginx adds.
func (s *Series) OverPeers(contender string) float64 {
	f := addedOverNginx
	if s.More {
		f = overBetter
	}
	return s.PerRound(s.Metric, func(round map[string]float64) float64 { return f(round, contender) })
}

func overNginx(r map[string]float64, v string) float64 { return get(r, v) / get(r, "nginx") }

func plain(r map[string]float64, v string) float64 { return get(r, v) }

const (
	// asDirect is a direct connection's share where the design says "as direct":
	// rounds differ by a tenth.
	asDirect = 1.1
	// none of something a session: what one process opens or closes meanwhile,
	// spread over 5000 sessions, is no more.
	none = .01
)

// rules are the design's goals, by datapath.
func rules() []rule {
	type by = map[string]float64
	all := func(limit float64) by { return by{nat: limit, offload: limit, splice: limit, relay: limit} }
	return []rule{
		{"pingpong-pinned", "p50", "64-byte latency p50, one core", "x direct", by{nat: 1.05, offload: 1.05}, true, "x", overDirect},
		{"pingpong-pinned", "p50", "64-byte latency p50, one core", "added over direct, x what nginx adds", by{splice: 1, relay: 1}, true, "x", addedOverNginx},
		{"rps64", "rps", "requests/s, 64 keep-alive connections", "x direct", by{nat: .97, offload: .95}, false, "x", overDirect},
		{"rps64", "rps", "requests/s, 64 keep-alive connections", "x the better peer", by{splice: 1, relay: 1}, false, "x", overBetter},
		{"bulk1", "gbits", "bulk, one stream", "x direct", by{nat: 1, offload: 1}, false, "x", overDirect},
		{"bulk1", "gbits", "bulk, one stream", "x the better peer", by{splice: 1.3, relay: 1.3}, false, "x", overBetter},
		{"bulk4", "gbits", "bulk, four streams", "x direct", by{nat: 1, offload: 1}, false, "x", overDirect},
		{"bulk4", "gbits", "bulk, four streams", "x the better peer", by{splice: 1.1, relay: 1.1}, false, "x", overBetter},
		{"cpu5000", "box", "CPU of the box at 5000 requests/s", "added over direct, x what nginx adds", by{nat: .1, offload: .1, splice: .9, relay: 1}, true, "x", addedOverNginx},
		{"connrate", "conns", "connections/s, one request each", "x direct", by{nat: .95}, false, "x", overDirect},
		// Sessions this short aren't handed over: offload's goal is relay's.
		{"connrate", "conns", "connections/s, one request each", "x the better peer", by{offload: 1, splice: 1, relay: 1}, false, "x", overBetter},
		{"session20", "conns", "sessions/s, 20 messages each", "x direct", by{nat: .95}, false, "x", overDirect},
		{"session20", "conns", "sessions/s, 20 messages each", "x the better peer", by{offload: 1.2, splice: 1, relay: 1}, false, "x", overBetter},
		{"memory", "kib5000", "own memory of an idle session, 5000 sessions", "KiB", by{nat: .5, splice: 2, relay: 2}, true, "KiB", plain},
		{"memory-used", "kib5000", "own memory of an idle session that was in use, 5000 sessions", "KiB", by{offload: 1}, true, "KiB", plain},
		{"memory-used", "fds", "descriptors of such a session", "each", by{offload: none}, true, "", plain},
		{"memory-used", "sockets", "kernel sockets of such a session", "each", by{offload: none}, true, "", plain},
		{"stalled", "mib", "memory of a client that never reads, on all hosts", "x direct", by{nat: asDirect, offload: asDirect}, true, "x", overDirect},
		{"stalled", "mib", "memory of a client that never reads, on all hosts", "x nginx's", by{splice: 1.2, relay: 1.2}, true, "x", overNginx},
		{"update", "stall", "live update, 1000 backends: longest stall", "ms", all(10), true, "ms", plain},
		{"update", "lost", "live update, 1000 backends: connections lost", "connections", all(0), true, "", plain},
	}
}

// Goals applies the design's goals to the run: those of the datapaths that took part.
func (r *Run) Goals() []Goal {
	took := map[string]bool{}
	for _, c := range r.Contenders {
		took[c.Name] = true
	}
	var goals []Goal
	for _, variant := range []string{nat, offload, splice, relay} {
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
