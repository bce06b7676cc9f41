// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sluice/bench/result"
)

// Machine describes this machine.
func Machine() result.Machine {
	m := result.Machine{Cores: runtime.NumCPU(), Go: runtime.Version(), IdleBusy: math.Round(idleBusy()*100) / 100}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		m.Kernel = unix.ByteSliceToString(uts.Release[:])
	}
	cpu := read("/proc/cpuinfo")
	m.CPU = value(cpu, "model name")
	if strings.Contains(value(cpu, "flags"), " hypervisor") {
		m.Hypervisor = "yes"
		if vendor := strings.TrimSpace(read("/sys/class/dmi/id/sys_vendor")); vendor != "" {
			m.Hypervisor = vendor
		}
	}
	m.OS = strings.Trim(value(strings.ReplaceAll(read("/etc/os-release"), "=", ":"), "PRETTY_NAME"), `"`)
	if kib, err := strconv.ParseFloat(strings.TrimSuffix(value(read("/proc/meminfo"), "MemTotal"), " kB"), 64); err == nil {
		m.MemoryGiB = math.Round(kib/(1<<20)*10) / 10
	}
	if f := strings.Fields(read("/proc/loadavg")); len(f) > 2 {
		m.Load = strings.Join(f[:3], " ")
	}
	files, _ := filepath.Glob("/sys/devices/system/cpu/vulnerabilities/*")
	active := 0
	for _, f := range files {
		if strings.HasPrefix(read(f), "Mitigation") {
			active++
		}
	}
	m.Mitigations = fmt.Sprintf("%d of %d", active, len(files))
	return m
}

func read(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(data)
}

// value is the first one of "key : value" lines.
func value(text, key string) string {
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
