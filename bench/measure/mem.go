// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// treePss is the proportional memory of the processes, in KiB.
func treePss(pids []int) (float64, error) {
	var sum float64
	for _, pid := range pids {
		f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, err
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			if rest, ok := strings.CutPrefix(lines.Text(), "Pss:"); ok {
				v, _ := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 64)
				sum += v
			}
		}
		if err := f.Close(); err != nil {
			return 0, err
		}
	}
	return sum, nil
}

// available is MemAvailable of the box, in KiB.
func available() float64 {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "MemAvailable:"); ok {
			v, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return v
		}
	}
	return 0
}

// tcpMemory is what the buffers of all TCP sockets of the machine hold, and from
// where on the kernel keeps them short, in KiB. The count is the machine's,
// whatever namespace asks (proc(5), /proc/net/sockstat and tcp_mem).
func tcpMemory() (held, pressure float64, err error) {
	page := float64(os.Getpagesize()) / 1024
	sockets, err1 := os.ReadFile("/proc/net/sockstat")
	limits, err2 := os.ReadFile("/proc/sys/net/ipv4/tcp_mem")
	if err := errors.Join(err1, err2); err != nil {
		return 0, 0, err
	}
	held, err1 = sockstat(string(sockets), "mem")
	f := strings.Fields(string(limits))
	if len(f) != 3 {
		return 0, 0, fmt.Errorf("tcp_mem has %d figures, not 3", len(f))
	}
	pressure, err2 = strconv.ParseFloat(f[1], 64)
	return held * page, pressure * page, errors.Join(err1, err2)
}

// sockstat finds a figure of TCP's in /proc/net/sockstat.
func sockstat(text, name string) (float64, error) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		for i := 1; i+1 < len(f) && f[0] == "TCP:"; i += 2 {
			if f[i] == name {
				return strconv.ParseFloat(f[i+1], 64)
			}
		}
	}
	return 0, fmt.Errorf("/proc/net/sockstat has no figure %q of TCP", name)
}
