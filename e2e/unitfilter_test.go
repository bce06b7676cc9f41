// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// filterVar names, in the environment of a process that is to become sluice, the file
// with the filter of system calls that it is to take on before.
const filterVar = "SLUICE_E2E_FILTER"

// becomeFiltered takes the filter on and runs the command in this process's place.
func becomeFiltered() error {
	b, err := os.ReadFile(os.Getenv(filterVar))
	if err != nil {
		return err
	}
	var filter []unix.SockFilter
	if err := json.Unmarshal(b, &filter); err != nil {
		return err
	}
	os.Unsetenv(filterVar)
	runtime.LockOSThread() // it is this thread's, which execs
	p := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&p)), 0, 0); err != nil {
		return fmt.Errorf("the filter of system calls: %w", err)
	}
	return fmt.Errorf("exec: %w", syscall.Exec(os.Args[1], os.Args[1:], os.Environ()))
}

// unitFilter writes the filter that systemd makes of the unit, into a file.
func unitFilter(t *testing.T, unit map[string][]string) string {
	t.Helper()
	numbers := syscallNumbers(t)
	var allowed []uint32
	for _, name := range allowedCalls(t, unit["SystemCallFilter"]) {
		if n, ok := numbers[name]; ok { // else another architecture's
			allowed = append(allowed, n)
		}
	}
	b, err := json.Marshal(filterFor(t, unit, numbers, allowed))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(tempDir(t, user{}), "filter")
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// allowedCalls is what the lines of SystemCallFilter= leave, by systemd's own sets: the
// first line is a list of what is allowed, later ones with a ~ take away from it.
func allowedCalls(t *testing.T, lines []string) []string {
	t.Helper()
	sets := syscallSets(t)
	var expand func(name string, f func(call string))
	expand = func(name string, f func(call string)) {
		if !strings.HasPrefix(name, "@") {
			f(name)
			return
		}
		if sets[name] == nil {
			t.Fatalf("systemd knows no set %s", name)
		}
		for _, member := range sets[name] {
			expand(member, f)
		}
	}
	allowed := map[string]bool{}
	expand("@default", func(call string) { allowed[call] = true })
	for _, line := range lines {
		list, less := strings.CutPrefix(line, "~")
		for _, name := range strings.Fields(list) {
			expand(name, func(call string) { allowed[call] = !less })
		}
	}
	maps.DeleteFunc(allowed, func(_ string, yes bool) bool { return !yes })
	if !allowed["execve"] || !allowed["bpf"] || allowed["mount"] {
		t.Fatalf("that isn't the unit's filter: %v", slices.Sorted(maps.Keys(allowed)))
	}
	return slices.Sorted(maps.Keys(allowed))
}

// syscallSets are systemd's named sets: calls, and other sets.
func syscallSets(t *testing.T) map[string][]string {
	t.Helper()
	out, err := exec.Command("systemd-analyze", "syscall-filter").Output()
	if err != nil {
		t.Fatalf("systemd-analyze is of the package systemd: %v", err)
	}
	sets, set := map[string][]string{}, ""
	for line := range strings.Lines(string(out)) {
		word := strings.TrimSpace(line)
		switch inner := strings.HasPrefix(line, " "); {
		case word == "":
		case !inner && strings.HasPrefix(word, "@"):
			set = word
		case !inner:
			set = "" // what is in no set
		case set != "" && !strings.HasPrefix(word, "#"):
			sets[set] = append(sets[set], word)
		}
	}
	return sets
}

// syscallNumbers are this architecture's, by the C library's headers.
func syscallNumbers(t *testing.T) map[string]uint32 {
	t.Helper()
	cmd := exec.Command("gcc", "-E", "-dM", "-x", "c", "-")
	cmd.Stdin = strings.NewReader("#include <asm/unistd.h>\n")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("the numbers of system calls: %v", err)
	}
	numbers := map[string]uint32{}
	for _, m := range regexp.MustCompile(`(?m)^#define __NR_(\w+) (\d+)$`).FindAllStringSubmatch(string(out), -1) {
		n, err := strconv.ParseUint(m[2], 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		numbers[m[1]] = uint32(n)
	}
	if n, ok := numbers["getpid"]; !ok || n != unix.SYS_GETPID {
		t.Fatalf("those aren't this architecture's numbers: %v", numbers)
	}
	return numbers
}

// Where seccomp's data has what a filter looks at. Arguments are of 64 bits, of which
// the lower half is looked at: on all that sluice runs on it comes first.
const (
	seccompNumber   = 0
	seccompArgument = 16
)

// filterFor is a program of classic BPF, as systemd has several: what RestrictNamespaces=,
// RestrictAddressFamilies= and MemoryDenyWriteExecute= forbid by arguments, then the
// list. What LockPersonality= forbids isn't in it: the race detector does that.
func filterFor(t *testing.T, unit map[string][]string, numbers map[string]uint32, allowed []uint32) []unix.SockFilter {
	t.Helper()
	var f []unix.SockFilter
	add := func(code uint16, k uint32, yes, no uint8) {
		f = append(f, unix.SockFilter{Code: code, Jt: yes, Jf: no, K: k})
	}
	load := func(at uint32) { add(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, at, 0, 0) }
	equal := func(k uint32, yes, no uint8) { add(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, k, yes, no) }
	mask := func(k uint32) { add(unix.BPF_ALU|unix.BPF_AND|unix.BPF_K, k, 0, 0) }
	back := func(verdict uint32) { add(unix.BPF_RET|unix.BPF_K, verdict, 0, 0) }
	refuse := func(e unix.Errno) { back(unix.SECCOMP_RET_ERRNO | uint32(e)) }
	// call has body look at an argument of that call, and goes on behind it.
	call := func(name string, argument uint32, body func()) {
		if _, ok := numbers[name]; !ok {
			return
		}
		load(seccompNumber)
		at := len(f)
		equal(numbers[name], 0, 0)
		load(seccompArgument + 8*argument)
		body()
		f[at].Jf = uint8(len(f) - at - 1)
	}
	if unit["RestrictNamespaces"][0] != "net" || unit["MemoryDenyWriteExecute"][0] != "yes" {
		t.Fatal("the unit isn't what is tried here")
	}
	const others = unix.CLONE_NEWCGROUP | unix.CLONE_NEWIPC | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUSER | unix.CLONE_NEWUTS
	unlessNone := func(bits uint32, e unix.Errno) {
		mask(bits)
		equal(0, 1, 0)
		refuse(e)
	}
	call("clone", 0, func() { unlessNone(others, unix.EPERM) })
	call("clone3", 0, func() { refuse(unix.ENOSYS) }) // its flags are in memory
	call("unshare", 0, func() { unlessNone(others, unix.EPERM) })
	call("setns", 1, func() {
		equal(0, 0, 1) // of whatever kind
		refuse(unix.EPERM)
		unlessNone(others, unix.EPERM)
	})
	call("socket", 0, func() {
		families := map[string]uint32{"AF_INET": unix.AF_INET, "AF_INET6": unix.AF_INET6, "AF_UNIX": unix.AF_UNIX, "AF_NETLINK": unix.AF_NETLINK, "AF_PACKET": unix.AF_PACKET}
		names := strings.Fields(unit["RestrictAddressFamilies"][0])
		for i, name := range names {
			if _, ok := families[name]; !ok {
				t.Fatalf("no number is known of %s", name)
			}
			equal(families[name], uint8(len(names)-i), 0)
		}
		refuse(unix.EAFNOSUPPORT)
	})
	call("mmap", 2, func() {
		mask(unix.PROT_WRITE | unix.PROT_EXEC)
		equal(unix.PROT_WRITE|unix.PROT_EXEC, 0, 1)
		refuse(unix.EPERM)
	})
	for _, name := range []string{"mprotect", "pkey_mprotect"} {
		call(name, 2, func() { unlessNone(unix.PROT_EXEC, unix.EPERM) })
	}
	load(seccompNumber)
	for _, n := range allowed {
		equal(n, 0, 1)
		back(unix.SECCOMP_RET_ALLOW)
	}
	refuse(unix.EPERM)
	return f
}
