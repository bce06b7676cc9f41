// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// defaultTimeout is that of `go test`.
const defaultTimeout = 10 * time.Minute

// TestTimeout is how long a guest may take for a test binary with these
// arguments: the binary's own timeout, whose report is worth having, and the time
// to boot. `go test` itself waits a minute longer than the binary.
func TestTimeout(args []string) time.Duration {
	d, err := time.ParseDuration(testFlag(args, "timeout"))
	if err != nil || d == 0 {
		return defaultTimeout
	}
	return d + 30*time.Second
}

// TestOutputs are the files that a test binary with these arguments writes for
// `go test`, as absolute paths.
func TestOutputs(args []string, dir string) []string {
	if d := testFlag(args, "outputdir"); d != "" {
		dir = d
	}
	var files []string
	for _, name := range []string{"coverprofile", "cpuprofile", "memprofile", "blockprofile", "mutexprofile", "trace"} {
		if path := testFlag(args, name); path != "" {
			if !filepath.IsAbs(path) {
				path = filepath.Join(dir, path)
			}
			files = append(files, path)
		}
	}
	return files
}

// testFlag is the value of -test.NAME=VALUE, empty if it isn't there. That is the
// form in which `go test` passes flags on.
func testFlag(args []string, name string) string {
	i := slices.IndexFunc(args, func(a string) bool { return strings.HasPrefix(a, "-test."+name+"=") })
	if i < 0 {
		return ""
	}
	_, value, _ := strings.Cut(args[i], "=")
	return value
}

// PassedOn are the variables of the host's environment that mean something to a
// test in the guest: Go's and ours. Paths of the host mean nothing there.
func PassedOn(env []string) []string {
	var keep []string
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		switch {
		case strings.HasPrefix(name, "SLUICE_VM_"):
		case strings.HasPrefix(name, "SLUICE_"), name == "GODEBUG", name == "GOMAXPROCS", name == "GOTRACEBACK",
			name == "GOGC", name == "GOMEMLIMIT", name == "GORACE", name == "LANG", name == "LC_ALL":
			keep = append(keep, e)
		}
	}
	return keep
}
