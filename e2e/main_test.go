// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"sluice/internal/nstest"
)

// binaryVar names the built binary in the environment of the processes that
// run the tests.
const binaryVar = "SLUICE_E2E_BINARY"

// TestMain builds the binary, with the race detector if the tests have it, and
// runs the tests in a child in a namespace of its own.
func TestMain(m *testing.M) {
	if os.Getenv(filterVar) != "" {
		fmt.Fprintln(os.Stderr, becomeFiltered())
		os.Exit(1)
	}
	if addr := os.Getenv(rpcVar); addr != "" {
		fmt.Fprintln(os.Stderr, becomeRPCServer(addr))
		os.Exit(1)
	}
	if os.Getenv(binaryVar) != "" {
		nstest.Main(m)
		return
	}
	code, err := buildAndRun()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun() (int, error) {
	dir, err := os.MkdirTemp("", "sl-e2e-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // users without privileges run it, too
		return 0, err
	}
	binary := filepath.Join(dir, "sluice")
	args := []string{"build", "-o", binary}
	if raceDetector {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "sluice/cmd/sluice")...).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("go build: %w\n%s", err, out)
	}
	exe, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(exe, os.Args[1:]...)
	cmd.Env = append(os.Environ(), binaryVar+"="+binary)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // Pdeathsig goes by the thread
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	if code := cmd.ProcessState.ExitCode(); code >= 0 {
		return code, nil
	}
	return 2, nil
}
