// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sluice/bench/lab"
	"sluice/bench/load"
)

// portRange is how many ports a host has for one address and one peer.
const portRange = 65535 - 1024

// portState is what tells whether short connections ran out of something.
type portState struct {
	waiting            map[*lab.Host]int // sockets in TIME_WAIT
	overflow, listener int               // sockets that found no room there; connections a full accept queue refused
	untracked          int               // packets dropped as connection tracking had no room or no port for them
}

func (b *Bed) ports() (portState, error) {
	s := portState{waiting: map[*lab.Host]int{}}
	hosts := []*lab.Host{b.lab.Client, b.lab.Backend}
	for _, e := range b.Entries {
		hosts = append(hosts, e.host)
	}
	for _, h := range hosts {
		text, err := h.ReadNet("sockstat")
		if err != nil {
			return s, err
		}
		fields := strings.Fields(text)
		for i, f := range fields {
			if f == "tw" && i+1 < len(fields) {
				s.waiting[h], _ = strconv.Atoi(fields[i+1])
			}
		}
		netstat, err := h.ReadNet("netstat")
		if err != nil {
			return s, err
		}
		s.overflow += counter(netstat, "TCPTimeWaitOverflow")
		s.listener += counter(netstat, "ListenOverflows")
		// There only where the kernel has it.
		if tracking, err := h.ReadNet("stat/nf_conntrack"); err == nil {
			s.untracked += perCPU(tracking, "drop") + perCPU(tracking, "early_drop") + perCPU(tracking, "insert_failed")
		}
	}
	return s, nil
}

// counter finds a figure in the two-line form of /proc/net/netstat.
func counter(text, name string) int {
	lines := strings.Split(text, "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
		for j, n := range names {
			if n == name && j < len(values) {
				v, _ := strconv.Atoi(values[j])
				return v
			}
		}
	}
	return 0
}

// perCPU sums up a column of a table with a line of hexadecimal figures for each CPU.
func perCPU(text, name string) int {
	names, rows, _ := strings.Cut(text, "\n")
	column := slices.Index(strings.Fields(names), name)
	sum := 0
	for line := range strings.Lines(rows) {
		if f := strings.Fields(line); column >= 0 && column < len(f) {
			v, _ := strconv.ParseInt(f[column], 16, 64)
			sum += int(v)
		}
	}
	return sum
}

// exhausted fails a run of short connections that measured a lack of ports
// instead of the contender.
func exhausted(e *Entry, res *load.Result, before, after portState) error {
	switch {
	case res.Errors[unix.EADDRNOTAVAIL.Error()] > 0:
		return fmt.Errorf("the client ran out of ports: %s", faults(res))
	case res.Lost > 0:
		return fmt.Errorf("%d connections failed: %s", res.Lost, faults(res))
	case after.overflow > before.overflow:
		return fmt.Errorf("%d sockets found no room in TIME_WAIT", after.overflow-before.overflow)
	case after.listener > before.listener:
		return fmt.Errorf("an accept queue overflowed %d times", after.listener-before.listener)
	case after.untracked > before.untracked:
		return fmt.Errorf("connection tracking had no room for %d packets", after.untracked-before.untracked)
	}
	peers := max(len(e.Backends), 1)
	if n, room := after.waiting[e.host], portRange*peers; n > room*8/10 {
		return fmt.Errorf("%d of the %d ports towards the backends are in TIME_WAIT on the balancer", n, room)
	}
	if n, room := after.waiting[e.bed.lab.Client], portRange*sources; n > room*8/10 {
		return fmt.Errorf("%d of the %d ports of the client are in TIME_WAIT", n, room)
	}
	return nil
}
