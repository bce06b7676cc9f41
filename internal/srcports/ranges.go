// SPDX-License-Identifier: Apache-2.0

package srcports

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Range is a range of ports, both ends included.
type Range struct{ First, Last uint16 }

func (r Range) String() string { return fmt.Sprintf("%d-%d", r.First, r.Last) }

// autoRange is what `auto` chooses from: below it live servers.
var autoRange = Range{10240, 65535}

// Sysctls are what the host says about its ports.
type Sysctls struct {
	Local    string // net.ipv4.ip_local_port_range: what the kernel chooses from
	Reserved string // net.ipv4.ip_local_reserved_ports: what it doesn't choose of that
}

// ReadSysctls reads them in the network namespace of the calling thread.
func ReadSysctls() (Sysctls, error) {
	local, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return Sysctls{}, fmt.Errorf("which ports the kernel chooses from: %w", err)
	}
	reserved, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_reserved_ports")
	if err != nil {
		return Sysctls{}, fmt.Errorf("which ports are reserved: %w", err)
	}
	return Sysctls{string(local), string(reserved)}, nil
}

// Choose is the ports that sluice may dial from: want, or without it those of
// 10240-65535 that neither the kernel chooses nor somebody has reserved. A port that
// the kernel might choose for a socket of the host is an error that says what to set.
// None left is no error.
func Choose(want []Range, s Sysctls) ([]Range, error) {
	local, err := parseLocal(s.Local)
	if err != nil {
		return nil, err
	}
	reserved, err := ParseRanges(strings.TrimSpace(s.Reserved))
	if err != nil {
		return nil, fmt.Errorf("net.ipv4.ip_local_reserved_ports: %w", err)
	}
	if len(want) == 0 {
		return subtract(subtract([]Range{autoRange}, []Range{local}), reserved), nil
	}
	var taken []Range
	set := strings.TrimSpace(s.Reserved)
	for _, r := range want {
		if t := subtract(intersect(r, local), reserved); len(t) > 0 {
			taken = append(taken, t...)
			set = strings.TrimPrefix(set+","+r.String(), ",")
		}
	}
	if len(taken) > 0 {
		return nil, fmt.Errorf("forward.ports: the kernel chooses from %s itself (net.ipv4.ip_local_port_range): set net.ipv4.ip_local_reserved_ports=%s, or take other ports", taken[0], set)
	}
	return want, nil
}

func parseLocal(s string) (Range, error) {
	f := strings.Fields(s)
	if len(f) == 2 {
		first, err1 := strconv.ParseUint(f[0], 10, 16)
		last, err2 := strconv.ParseUint(f[1], 10, 16)
		if err1 == nil && err2 == nil && first <= last {
			return Range{uint16(first), uint16(last)}, nil
		}
	}
	return Range{}, fmt.Errorf("net.ipv4.ip_local_port_range: %q isn't two ports", strings.TrimSpace(s))
}

// ParseRanges reads "A-B,C": as the kernel writes its list of reserved ports.
func ParseRanges(s string) ([]Range, error) {
	var out []Range
	if s == "" {
		return nil, nil
	}
	for _, part := range strings.Split(s, ",") {
		a, b, two := strings.Cut(part, "-")
		if !two {
			b = a
		}
		first, err1 := strconv.ParseUint(a, 10, 16)
		last, err2 := strconv.ParseUint(b, 10, 16)
		if err1 != nil || err2 != nil || first > last {
			return nil, fmt.Errorf("%q isn't a port or a range of ports", part)
		}
		out = append(out, Range{uint16(first), uint16(last)})
	}
	return out, nil
}

func intersect(a, b Range) []Range {
	if r := (Range{max(a.First, b.First), min(a.Last, b.Last)}); r.First <= r.Last {
		return []Range{r}
	}
	return nil
}

// subtract is what is in from and in none of less.
func subtract(from, less []Range) []Range {
	for _, l := range less {
		var kept []Range
		for _, r := range from {
			if len(intersect(r, l)) == 0 {
				kept = append(kept, r)
				continue
			}
			if r.First < l.First {
				kept = append(kept, Range{r.First, l.First - 1})
			}
			if r.Last > l.Last {
				kept = append(kept, Range{l.Last + 1, r.Last})
			}
		}
		from = kept
	}
	return from
}
