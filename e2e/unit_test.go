// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/internal/netrig"
)

// packagedUnit is the file that systemd gets: each directive's values.
func packagedUnit(t *testing.T) map[string][]string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "packaging", "sluice.service"))
	if err != nil {
		t.Fatal(err)
	}
	unit := map[string][]string{}
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
			unit[key] = append(unit[key], value)
		}
	}
	return unit
}

// kernelsFiles does to the kernel's files what ProtectKernelTunables= does, in a mount
// namespace of its own, but for /sys/fs/bpf, which ReadWritePaths= has; $HIDDEN is a file that nobody may read.
const kernelsFiles = `mount --bind -o ro /proc/sys /proc/sys && mount --rbind /sys /sys && mount -o remount,bind,ro /sys &&
	for f in /proc/kallsyms /proc/kcore; do [ ! -e $f ] || mount --bind "$HIDDEN" $f || exit; done`

// TestPackagedUnit: with the capabilities, system calls, families of addresses and kinds
// of namespaces that the unit leaves, without new privileges and with the kernel's
// settings read-only, sessions are forwarded, the self-test runs in namespaces of its
// own, and what only the start takes is given up.
func TestPackagedUnit(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root to take capabilities away")
	}
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Fatal("setpriv is of util-linux, which every Debian has: ", err)
	}
	unit := packagedUnit(t)
	for _, yes := range []string{"NoNewPrivileges", "ProtectKernelTunables"} {
		if !slices.Equal(unit[yes], []string{"yes"}) {
			t.Errorf("the unit isn't what is tried here: %s=%v", yes, unit[yes])
		}
	}
	bounding := "-all"
	for _, c := range strings.Fields(unit["CapabilityBoundingSet"][0]) {
		bounding += ",+" + strings.ToLower(strings.TrimPrefix(c, "CAP_"))
	}
	hidden := filepath.Join(tempDir(t, user{}), "hidden")
	if err := os.WriteFile(hidden, nil, 0); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	inside := fmt.Sprintf(`HIDDEN=%q; %s && %s=%q exec setpriv --no-new-privs --bounding-set %s --inh-caps=-all %q "$0" "$@"`,
		hidden, kernelsFiles, filterVar, unitFilter(t, unit), bounding, self)
	as := `exec unshare --mount --propagation private /bin/sh -c '` + inside + `' "$0" "$@"`
	wrap := func(i *instance) {
		i.format = offloadFormat
		i.wrap = as
		i.extra = "log: {level: debug}\n"
	}
	h := startOnHostsWith(t, false, netrig.Options{}, "", "", wrap)
	if l := h.doc().Listeners[0]; l.Datapath != "offload" {
		t.Errorf("%+v", l)
	}
	c, _ := h.forwarded()
	c.Close()
	if line := h.lines(1)[0]; !strings.HasPrefix(line, "200 client_closed offload ") {
		t.Error(line)
	}
	h.keepsFew()
	if v := h.status("Seccomp"); len(v) != 1 || v["2"] == 0 {
		t.Errorf("its threads have no filter: %v", v)
	}
	where := false
	for _, e := range h.stderr.entries(t) {
		where = where || strings.Contains(fmt.Sprint(e), "own network namespaces")
	}
	if !where {
		t.Error("the self-test of offload didn't run in namespaces of its own")
	}

	// And flows outlive the service, whose restart takes them over.
	if !slices.Contains(unit["ReadWritePaths"], "-/sys/fs/bpf") {
		t.Errorf("the unit may write %q, want -/sys/fs/bpf among them", unit["ReadWritePaths"])
	}
	p := startPinnedAs(t, "", as)
	c, n := p.forwarded()
	p.stop(unix.SIGTERM)
	p.exchange(c)
	p.again(p.body(""))
	p.exchange(c)
	p.endLine(c, n+2)
	p.keepsFew()
	eventually(t, func() string { // the last record, and with it all that is pinned
		if n := p.metric("sluice_forward_flows"); n != 0 {
			return fmt.Sprintf("%v records are still in use", n)
		}
		return ""
	})
	p.stop(unix.SIGTERM)
}
