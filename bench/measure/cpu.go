// SPDX-License-Identifier: Apache-2.0

package measure

import (
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
