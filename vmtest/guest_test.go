// SPDX-License-Identifier: Apache-2.0

package vmtest_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/vmtest"
	"sluice/vmtest/lacks"
)

// testKernel is the one these tests boot: they are about the runner.
const testKernel = "6.12"

// deed tells this test binary, run in the guest, what to do instead of tests.
const deed = "SLUICE_VMTEST_DEED"

func TestMain(m *testing.M) {
	if what := os.Getenv(deed); what != "" {
		os.Exit(do(what))
	}
	os.Exit(m.Run())
}

// do does one deed, in the guest, and gives the exit code.
func do(what string) int {
	fmt.Println("doing", what)
	fmt.Fprintln(os.Stderr, "complaining about", what)
	switch what {
	case "exit 0":
		return 0
	case "exit 1":
		return 1
	case "exit 3":
		return 3
	case "panic":
		panic("on purpose")
	case "signal":
		if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
			return 1
		}
	case "oops":
		if err := os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0); err != nil {
			return 1
		}
	case "bytes":
		for range 64 {
			if _, err := os.Stdout.Write(everyByte()); err != nil {
				return 1
			}
		}
		return 0
	case "look":
		return look()
	}
	time.Sleep(time.Hour) // hang; and what the deeds above should never come to
	return 0
}

// everyByte is 64 KiB in which each byte value occurs.
func everyByte() []byte {
	b := make([]byte, 64<<10)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

// look checks what the guest promises to a test.
func look() int {
	bad := 0
	want := func(ok bool, what string) {
		if !ok {
			fmt.Println("missing:", what)
			bad = 1
		}
	}
	for _, path := range []string{"/proc/self", "/sys/class/net/lo", "/dev/null", "/tmp", "/sys/fs/bpf",
		"/sys/fs/cgroup/cgroup.controllers", "/sys/kernel/tracing/trace", "/sys/kernel/btf/vmlinux", "guest_test.go", "../go.mod"} {
		_, err := os.Stat(path)
		want(err == nil, path)
	}
	want(os.Getenv("SLUICE_VM_KERNEL") == testKernel, "SLUICE_VM_KERNEL")
	for _, cmd := range []string{
		"ip link show lo | grep -q LOWER_UP",
		"ip link add sl-a type veth peer name sl-b",
		"ip netns add sl-x && ip netns exec sl-x ip link show lo",
		"test $(nproc) -ge 2",
	} {
		out, err := exec.Command("/bin/sh", "-c", cmd).CombinedOutput()
		want(err == nil, fmt.Sprintf("%s: %v %s", cmd, err, out))
	}
	return bad
}

// runner builds the runner, or skips where there is nothing to run it with.
func runner(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		lacks.Skip(t, "time", "-short")
	}
	for _, tool := range []string{"qemu-system-x86_64", "apt-get", "dpkg"} {
		if _, err := exec.LookPath(tool); err != nil {
			lacks.Skip(t, "qemu", err.Error())
		}
	}
	path := filepath.Join(t.TempDir(), "vmtest-run")
	build := exec.Command("go", "build", "-o", path, "./cmd/vmtest-run")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the runner: %v: %s", err, out)
	}
	if out, err := exec.Command(path, "-kernel", testKernel, "-fetch").CombinedOutput(); err != nil {
		lacks.Skip(t, "kernel-package", fmt.Sprintf("%v: %s", err, out))
	}
	return path
}

// start runs this binary in a guest for one deed.
func start(t *testing.T, run, what string, flags ...string) (code int, stdout, stderr string) {
	t.Helper()
	args := append([]string{"-kernel", testKernel, "-env", deed + "=" + what}, flags...)
	cmd := exec.Command(run, append(args, os.Args[0])...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errOut.String()
}

func TestRunner(t *testing.T) {
	run := runner(t)
	for _, c := range []struct {
		deed   string
		flags  []string
		code   int
		stderr []string // must be in it, in order
	}{
		{deed: "exit 0"},
		{deed: "exit 1", code: 1},
		{deed: "exit 3", code: 3},
		{deed: "panic", code: 2, stderr: []string{"panic: on purpose", "main.main"}},
		{deed: "signal", code: 128 + 9, stderr: []string{"SIGKILL"}},
		{deed: "hang", flags: []string{"-timeout", "25s"}, code: vmtest.ExitTimeout,
			stderr: []string{"SIGQUIT", "goroutine", "timeout: the guest didn't end within 25s", "the end of its log", "Show Blocked State"}},
		{deed: "oops", code: vmtest.ExitDied, stderr: []string{"kernel died", "the end of its log", "Kernel panic"}},
	} {
		t.Run(c.deed, func(t *testing.T) {
			code, stdout, stderr := start(t, run, c.deed, c.flags...)
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			if want := "doing " + c.deed + "\n"; stdout != want {
				t.Errorf("stdout %q, want %q", stdout, want)
			}
			rest := stderr
			for _, want := range append([]string{"complaining about " + c.deed + "\n"}, c.stderr...) {
				_, after, ok := strings.Cut(rest, want)
				if !ok {
					t.Fatalf("stderr lacks %q in its place:\n%s", want, stderr)
				}
				rest = after
			}
			if len(c.stderr) == 0 && rest != "" {
				t.Errorf("stderr has more: %q", rest)
			}
		})
	}
}

// Output comes back byte for byte, NUL and CRLF included, however much it is.
func TestOutputIsExact(t *testing.T) {
	code, stdout, stderr := start(t, runner(t), "bytes")
	_, body, _ := strings.Cut(stdout, "\n")
	if want := strings.Repeat(string(everyByte()), 64); code != 0 || body != want {
		t.Errorf("exit code %d, %d bytes, want %d; stderr %s", code, len(body), len(want), stderr)
	}
}

func TestGuestHasWhatTestsNeed(t *testing.T) {
	if code, stdout, stderr := start(t, runner(t), "look"); code != 0 {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
}
