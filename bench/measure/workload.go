// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/bench/result"
)

// baseBackends is how many backends there are where their number is not the
// question: enough to keep a balancer from running out of ports towards them.
const baseBackends = 4

// sessionMessages is how many messages a session of middling length has: enough
// that what it costs to open one isn't all, too few for that to be nothing.
const sessionMessages = 20

// Workload is one thing that is measured.
type Workload struct {
	result.Series // without samples
	Bed           BedKind
	Once          bool // slow and steady: one round is enough for a quick run
	exchange      int  // bytes of a message and its answer, of a workload that has such
	run           func(context.Context, *Entry, time.Duration) (result.Sample, error)
}

// All are the workloads, in the order of tables.
func All() []Workload {
	free, pinned := BedKind{Backends: baseBackends}, BedKind{Backends: baseBackends, Pinned: true}
	list := []Workload{
		{Series: series("pingpong-pinned", "Latency of a 64-byte message at one connection, all on one core", "p50", "µs", false,
			"p99 µs", "p999 µs", "rps 1/s"), Bed: pinned, exchange: 2 * messageSize, run: keepAlive(1)},
		{Series: series("pingpong", "Latency of a 64-byte message at one connection, cores free", "p50", "µs", false,
			"p99 µs", "p999 µs", "rps 1/s"), Bed: free, exchange: 2 * messageSize, run: keepAlive(1)},
	}
	for _, n := range []int{64, 512} {
		list = append(list, Workload{Series: series(fmt.Sprintf("rps%d", n), fmt.Sprintf("Requests per second, %d keep-alive connections", n), "rps", "1/s", true,
			"p50 µs", "p99 µs", "p999 µs", "client cores"), Bed: free, exchange: 2 * messageSize, run: keepAlive(n)})
	}
	list = append(list, Workload{Series: series("connrate", "Connections per second, one 64-byte echo each, 16 at a time", "conns", "1/s", true,
		"p50 µs", "p99 µs", "own cores"), Bed: free, exchange: 2 * messageSize, run: connRate})
	for _, n := range []int{3, 5, sessionMessages, 50} {
		list = append(list, Workload{Series: series(fmt.Sprintf("session%d", n), fmt.Sprintf("Sessions per second, %d 64-byte messages each, 16 at a time", n), "conns", "1/s", true,
			"p50 µs", "p99 µs", "rps 1/s", "own cores"), Bed: free, exchange: 2 * messageSize, run: sessions(n)})
	}
	for _, up := range []bool{false, true} {
		for _, n := range []int{1, 4, 32} {
			list = append(list, bulkWorkload(n, up, free))
		}
	}
	list = append(list,
		Workload{Series: series("cpu5000", "Busy cores of the whole box at 5000 requests/s over 32 connections", "box", "cores", false,
			"own cores", "p50 µs", "p99 µs", "rps 1/s"), Bed: free, exchange: 2 * messageSize, run: fixedRate},
		Workload{Series: series("memory", "Own memory of an idle session, after a byte each way", "kib5000", "KiB", false,
			"kib1000 KiB", "kib9000 KiB", "base MiB", "at5000 MiB"), Bed: free, Once: true, exchange: 2, run: memory(1)},
		Workload{Series: series("memory-used", fmt.Sprintf("Own memory of an idle session, after %d bytes each way, one by one", usedMessages), "kib5000", "KiB", false,
			"fds a session", "sockets a session", "base MiB"), Bed: free, Once: true, exchange: 2, run: memory(usedMessages)},
		Workload{Series: series("stalled", fmt.Sprintf("Memory of all hosts for a client that never reads, %d of them", stalledClients), "mib", "MiB", false,
			"own MiB", "box MiB"), Bed: BedKind{Backends: baseBackends, Auto: true}, Once: true, run: stalled(stalledClients)},
	)
	for _, n := range []int{2, 16, 256, 1024} {
		kind := BedKind{Backends: n}
		list = append(list, Workload{Series: series(fmt.Sprintf("connrate-b%d", n), fmt.Sprintf("Connections per second with %d backends", n), "conns", "1/s", true,
			"p50 µs", "p99 µs", "own cores", "pss KiB"), Bed: kind, exchange: 2 * messageSize, run: connRate})
	}
	list = append(list, pacedWorkloads(list)...)
	list = append(list,
		Workload{Series: series("update", "Live update under load, 1000 backends: longest stall", "stall", "ms", false,
			"lost connections", "apply ms", "applymax ms"), Bed: BedKind{Backends: 1000}, run: liveUpdate})
	wan := BedKind{Backends: baseBackends, WAN: true}
	for _, n := range []int{1, 32} {
		w := bulkWorkload(n, false, wan)
		w.Name, w.Title = fmt.Sprintf("wan-bulk%d", n), w.Title+", over a link of 50 ms and 1 % loss"
		list = append(list, w)
	}
	list = append(list, Workload{Series: series("wan-stalled", fmt.Sprintf("Memory of all hosts for a client that never reads, %d of them, over a link of 50 ms and 1 %% loss", farStalled), "mib", "MiB", false,
		"own MiB", "box MiB"), Bed: wan, Once: true, run: stalled(farStalled)})
	tools := toolWorkloads()
	return slices.Concat(list, tools, pacedWorkloads(tools))
}

// paced ends the names of workloads that are repeated under BBR, the default of
// many servers, whose sockets pace what they send.
const paced = "-bbr"

// pacedWorkloads repeat the main ones of list under BBR.
func pacedWorkloads(list []Workload) []Workload {
	var again []Workload
	for _, w := range list {
		if slices.Contains([]string{"pingpong-pinned", "rps64", "connrate", "bulk1", "tool-sockperf", "tool-wrk", "tool-wrk-close"}, w.Name) {
			w.Name, w.Title, w.Bed.Congestion, w.Beside = w.Name+paced, w.Title+", under BBR", "bbr", w.Name
			again = append(again, w)
		}
	}
	return again
}

// toolWorkloads repeat the main ones with other load tools.
func toolWorkloads() []Workload {
	free, pinned := BedKind{Backends: baseBackends, Tools: true}, BedKind{Backends: baseBackends, Pinned: true, Tools: true}
	list := []Workload{
		{Series: series("tool-sockperf", "sockperf: round trip of a 64-byte message, all on one core", "p50", "µs", false, "p99 µs", "p999 µs"), Bed: pinned, exchange: 2 * messageSize, run: sockperf},
		{Series: series("tool-wrk", "wrk: HTTP requests per second, 64 keep-alive connections", "rps", "1/s", true), Bed: free, run: wrk(false)},
		{Series: series("tool-wrk-close", "wrk: HTTP requests per second, a connection each, 16 at a time", "rps", "1/s", true), Bed: free, run: wrk(true)},
	}
	for _, up := range []bool{false, true} {
		for _, n := range []int{1, 4} {
			name := "tool-iperf3"
			if n > 1 {
				name += fmt.Sprintf("-%d", n)
			}
			if up {
				name += "-up"
			}
			_, what := bulkName(n, up)
			list = append(list, Workload{Series: series(name, "iperf3: "+what, "gbits", "Gbit/s", true), Bed: free, run: iperf3(n, up)})
		}
	}
	return list
}

func bulkWorkload(n int, up bool, bed BedKind) Workload {
	name, what := bulkName(n, up)
	return Workload{Series: series(name, "Bulk "+what, "gbits", "Gbit/s", true, "own cores"), Bed: bed, run: bulk(n, up)}
}

// bulkName is the name of n streams of bulk one way, and what they are in words.
func bulkName(n int, up bool) (name, what string) {
	name, what = fmt.Sprintf("bulk%d", n), "to the client"
	if up {
		name, what = name+"up", "to the backend"
	}
	if n == 1 {
		return name, what + ", one stream"
	}
	return name, fmt.Sprintf("%s, %d streams", what, n)
}

// series takes further metrics as "name unit".
func series(name, title, metric, unit string, more bool, extra ...string) result.Series {
	s := result.Series{Name: name, Title: title, Metric: metric, Unit: unit, More: more}
	for _, e := range extra {
		n, u, _ := strings.Cut(e, " ")
		s.Extra = append(s.Extra, result.Metric{Name: n, Unit: u})
	}
	return s
}

// quickNames are the workloads of a quick run: those with a goal that fit.
func quickNames() []string {
	return []string{"pingpong-pinned", "rps64", "connrate", "session20", "bulk1", "bulk4", "cpu5000", "memory", "stalled",
		"pingpong-pinned-bbr", "rps64-bbr", "connrate-bbr", "bulk1-bbr"}
}

// Quick are the workloads of a quick run.
func Quick() []Workload {
	list, err := Select(quickNames())
	if err != nil {
		panic(err) // the names stand a few lines above
	}
	return list
}

// Select finds workloads by name.
func Select(names []string) ([]Workload, error) {
	all := All()
	var list []Workload
	for _, name := range names {
		i := slices.IndexFunc(all, func(w Workload) bool { return w.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("unknown workload %q; there are %s", name, strings.Join(WorkloadNames(), ", "))
		}
		list = append(list, all[i])
	}
	return list, nil
}

// WorkloadNames are the names of all.
func WorkloadNames() []string {
	var names []string
	for _, w := range All() {
		names = append(names, w.Name)
	}
	return names
}
