// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// userHZ is the unit of /proc/stat on every architecture Linux shows to programs.
const userHZ = 100

// boxTime is the idle time of the whole box, and when it was read.
type boxTime struct {
	idle, steal float64 // seconds, over all cores
	at          time.Time
}

// readBox takes idle time, which a tickless kernel accounts exactly; user and
// system time are sampled at ticks.
func readBox() boxTime {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return boxTime{}
	}
	line, _, _ := strings.Cut(string(data), "\n")
	f := strings.Fields(line)
	num := func(i int) float64 {
		if i >= len(f) {
			return 0
		}
		v, _ := strconv.ParseFloat(f[i], 64)
		return v / userHZ
	}
	return boxTime{idle: num(4) + num(5), steal: num(8), at: time.Now()}
}

// busy is how many cores were busy between two readings.
func busy(a, b boxTime) float64 {
	wall := b.at.Sub(a.at).Seconds()
	if wall <= 0 {
		return 0
	}
	return max(float64(runtime.NumCPU())-(b.idle-a.idle)/wall-(b.steal-a.steal)/wall, 0)
}

// idleBusy is what runs anyway, in cores.
func idleBusy() float64 {
	a := readBox()
	time.Sleep(500 * time.Millisecond)
	return busy(a, readBox())
}

// treeCPU is the processor time, in seconds, of the threads that the processes have now.
func treeCPU(pids []int) float64 {
	var sum float64
	for _, pid := range pids {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		for _, path := range files {
			data, err := os.ReadFile(path)
			if err != nil {
				continue // the thread has ended
			}
			ns, _, _ := strings.Cut(string(data), " ")
			v, _ := strconv.ParseFloat(ns, 64)
			sum += v / 1e9
		}
	}
	return sum
}

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
