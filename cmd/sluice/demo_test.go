// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestDemoCutShort: a demonstration whose reader goes away, or that is told to
// stop, leaves no file behind, and ends.
func TestDemoCutShort(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(p *os.Process, out *os.File)
		says string
	}{
		"its reader has gone": {func(_ *os.Process, out *os.File) { out.Close() }, ""},
		"SIGTERM":             {func(p *os.Process, _ *os.File) { _ = p.Signal(syscall.SIGTERM) }, "sluice: demo: stopped\n"},
		"SIGINT":              {func(p *os.Process, _ *os.File) { _ = p.Signal(syscall.SIGINT) }, "sluice: demo: stopped\n"},
		"SIGHUP":              {func(p *os.Process, _ *os.File) { _ = p.Signal(syscall.SIGHUP) }, "sluice: demo: stopped\n"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			out, in, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			cmd := exec.Command(os.Args[0], "demo")
			cmd.Env = append(os.Environ(), asSluice+"=1", "TMPDIR="+dir)
			var errs bytes.Buffer
			cmd.Stdout, cmd.Stderr = in, &errs
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			in.Close()
			ended := make(chan struct{})
			go func() { _ = cmd.Wait(); close(ended) }()
			if line, err := bufio.NewReaderSize(out, 16).ReadString('\n'); err != nil || !strings.HasPrefix(line, "1. ") {
				t.Fatalf("%q, %v", line, err)
			}
			c.end(cmd.Process, out)
			select {
			case <-ended:
			case <-time.After(20 * time.Second):
				_ = cmd.Process.Kill()
				t.Fatal("it doesn't end")
			}
			if code := cmd.ProcessState.ExitCode(); code != 1 || errs.String() != c.says {
				t.Errorf("exit code %d, stderr %q, want 1 and %q", code, errs.String(), c.says)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}
