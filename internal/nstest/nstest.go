// SPDX-License-Identifier: Apache-2.0

// Package nstest gives a test binary a network namespace of its own and checks
// that it leaves nothing behind.
package nstest

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const inside = "SLUICE_TEST_IN_NETNS"

// Main runs a package's tests in a fresh network namespace with loopback up,
// and fails them if descriptors or goroutines are left over. The whole process
// is in the namespace: event loops run on threads of their own, which a
// namespace entered by one thread would not cover. Without the right to make
// a namespace the tests run where they are, over loopback, and say so.
//
// Tests that call Parallel wait for time to pass rather than for a processor: eight
// of them run at a time, if -parallel says nothing else.
func Main(m *testing.M) {
	if os.Getenv(inside) == "" {
		code, err := again()
		if err == nil {
			os.Exit(code)
		}
		fmt.Fprintln(os.Stderr, "no network namespace of our own, using loopback here:", err)
	} else if err := loopbackUp(); err != nil {
		fmt.Fprintln(os.Stderr, "loopback:", err)
		os.Exit(1)
	}
	if err := sideBySide(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fds, routines := OpenFDs(), runtime.NumGoroutine()
	code := m.Run()
	if code == 0 {
		if err := settled(fds, routines); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// sideBySide sets how many tests run at a time.
func sideBySide() error {
	const name = "test.parallel"
	if !flag.Parsed() {
		flag.Parse()
	}
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	if given {
		return nil
	}
	if err := flag.Set(name, "8"); err != nil {
		return fmt.Errorf("-parallel: %w", err)
	}
	return nil
}

// again runs this very command in a new namespace and returns its exit code.
func again() (int, error) {
	exe, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(exe, os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // Pdeathsig goes by the thread
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	sigs := make(chan os.Signal, 4)
	signal.Notify(sigs, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT)
	go func() {
		for s := range sigs {
			_ = cmd.Process.Signal(s)
		}
	}()
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 1, nil
	}
	if code := cmd.ProcessState.ExitCode(); code >= 0 {
		return code, nil
	}
	return 2, nil
}

func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// OpenFDs is how many descriptors the process holds.
func OpenFDs() int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	n := 0
	for _, d := range list {
		if i, err := strconv.Atoi(d.Name()); err == nil && i > 2 {
			n++
		}
	}
	return n - 1 // the directory itself
}

// settled waits until no more descriptors and goroutines are there than
// before, a handful of the runtime's own aside.
func settled(fds, routines int) error {
	const runtimeFDs, runtimeRoutines = 6, 4
	var f, r int
	for range 50 {
		f, r = OpenFDs(), runtime.NumGoroutine()
		if f <= fds+runtimeFDs && r <= routines+runtimeRoutines {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	buf := make([]byte, 64<<10)
	buf = buf[:runtime.Stack(buf, true)]
	return fmt.Errorf("left behind: %d descriptors (%d before), %d goroutines (%d before)\n%s", f, fds, r, routines, buf)
}
