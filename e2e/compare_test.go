// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var (
	proxyLine = regexp.MustCompile(`^(\S+) \[([^\]]*)\] (\S+) (\d{3}) (\d+) (\d+) (\S+) "([^"]*)" "([^"]*)" "([^"]*)" "([^"]*)"$`)
	timeLocal = regexp.MustCompile(`^[0-3]\d/(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)/\d{4}:[0-2]\d:[0-5]\d:[0-6]\d [+-]\d{4}$`)
	seconds   = regexp.MustCompile(`^\d+\.\d{3}$`)
)

// fields takes a line in the proxy format apart. What differs from run to run
// is checked for its form and masked: the time, how long the session took
// (least: seconds that it can't have been shorter than) and connecting took.
func fields(t testing.TB, line string, least int) []string {
	t.Helper()
	m := proxyLine.FindStringSubmatch(line)
	if m == nil {
		t.Errorf("not in the proxy format: %q", line)
		return nil
	}
	f := m[1:]
	if !timeLocal.MatchString(f[1]) {
		t.Errorf("no $time_local: %q in %q", f[1], line)
	}
	f[1] = "TIME"
	took, err := strconv.ParseFloat(f[6], 64)
	if err != nil || !seconds.MatchString(f[6]) {
		t.Errorf("no $session_time: %q in %q", f[6], line)
	}
	if took < float64(least)-0.01 || took > float64(least)+5 {
		t.Errorf("$session_time %s, want %d and a little: %q", f[6], least, line)
	}
	f[6] = fmt.Sprintf("%d s", least)
	list := strings.Split(f[10], ", ")
	for i, c := range list {
		if c != "-" {
			if !seconds.MatchString(c) {
				t.Errorf("no $upstream_connect_time: %q in %q", c, line)
			}
			list[i] = "CONNECT"
		}
	}
	f[10] = strings.Join(list, ", ")
	return f
}

var fieldNames = []string{"remote_addr", "time_local", "protocol", "status", "bytes_sent", "bytes_received", "session_time",
	"upstream_addr", "upstream_bytes_sent", "upstream_bytes_received", "upstream_connect_time"}

// sameLines compares what nginx and sluice logged for the same deeds.
func sameLines(t testing.TB, nginx, sluice []string, least int) {
	t.Helper()
	if len(nginx) != len(sluice) {
		t.Errorf("nginx wrote %d lines, sluice %d", len(nginx), len(sluice))
	}
	for i := range min(len(nginx), len(sluice)) {
		// Only the last line of a sample with a structural time has it.
		wait := 0
		if i == len(nginx)-1 {
			wait = least
		}
		a, b := fields(t, nginx[i], wait), fields(t, sluice[i], wait)
		for k := range min(len(a), len(b)) {
			if a[k] != b[k] {
				t.Errorf("line %d: $%s: nginx %q, sluice %q", i+1, fieldNames[k], a[k], b[k])
			}
		}
	}
	if t.Failed() {
		t.Logf("nginx:\n%s\nsluice:\n%s", strings.Join(nginx, "\n"), strings.Join(sluice, "\n"))
	}
}
