// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"sluice/config"
)

// childEnv tells the test binary to be a child: one that fills a disk, or one
// that logs to standard output.
const childEnv = "ACCESSLOG_TEST_CHILD"

func TestMain(m *testing.M) {
	if kind := os.Getenv(childEnv); kind != "" {
		run := fullDisk
		if kind == "stdout" {
			run = writeStdout
		}
		if err := run(kind, os.Getenv(childEnv+"_DIR")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestFullDisk(t *testing.T) {
	for _, kind := range []string{"limit", "tmpfs"} {
		t.Run(kind, func(t *testing.T) {
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(self)
			cmd.Env = append(os.Environ(), childEnv+"="+kind, childEnv+"_DIR="+t.TempDir())
			if kind == "tmpfs" {
				// A mount of its own goes with the child.
				cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
				if os.Getuid() != 0 {
					cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWUSER
					cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
				}
			}
			out, err := cmd.CombinedOutput()
			if errors.Is(err, unix.EPERM) {
				t.Skip("no right to mount; the file size limit stands for a full disk")
			}
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		})
	}
}

// fullDisk is the child: the file takes some 10000 bytes, then none, then more.
func fullDisk(kind, dir string) error {
	path, filler := filepath.Join(dir, "log"), filepath.Join(dir, "filler")
	var release func() error
	switch kind {
	case "limit":
		// 10000 is within a line.
		limit := unix.Rlimit{Cur: 10_000, Max: unix.RLIM_INFINITY}
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
			return err
		}
		release = func() error {
			return unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY})
		}
	case "tmpfs":
		if err := unix.Mount("none", dir, "tmpfs", 0, "size=64k"); err != nil {
			return err
		}
		if err := os.WriteFile(filler, make([]byte, 52<<10), 0o600); err != nil {
			return err
		}
		release = func() error { return os.Remove(filler) }
	}
	l, err := Open(&config.AccessLog{Path: path, Format: config.FormatProxy}, zerolog.Nop())
	if err != nil {
		return err
	}
	defer l.Close()
	const first, then = 400, 20
	for i := range uint64(first) {
		if i == first/2 {
			time.Sleep(3 * gather) // more than one batch
		}
		l.Write(record(i))
	}
	if err := settled(l, first); err != nil {
		return err
	}
	written := l.Lines()
	if written == 0 || l.Dropped() == 0 {
		return fmt.Errorf("the disk was not filled: %d lines, %d dropped", written, l.Dropped())
	}
	if err := wholeLines(path, written); err != nil {
		return err
	}
	if err := release(); err != nil {
		return err
	}
	for i := range uint64(then) {
		l.Write(record(i))
	}
	if err := settled(l, first+then); err != nil {
		return err
	}
	if l.Lines() != written+then {
		return fmt.Errorf("%d lines after %d once there is room, want %d more", l.Lines(), written, then)
	}
	return wholeLines(path, written+then)
}

func TestStdout(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childEnv+"=stdout")
	out, err := cmd.Output()
	if err != nil || string(out) != "1\n2\n3\nand more\n" {
		t.Errorf("standard output is %q, %v", out, err)
	}
}

// writeStdout is the child: the log must not close standard output.
func writeStdout(_, _ string) error {
	l, err := Open(&config.AccessLog{Path: "-", Format: "$connection"}, zerolog.Nop())
	if err != nil {
		return err
	}
	for i := range uint64(3) {
		l.Write(record(i + 1))
		if err := l.Reopen(); err != nil {
			return err
		}
	}
	if err := l.Close(); err != nil {
		return err
	}
	_, err = fmt.Println("and more")
	return err
}

func settled(l *Log, n uint64) error {
	for range 2000 {
		if l.Lines()+l.Dropped() == n {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("%d lines and %d dropped never became %d", l.Lines(), l.Dropped(), n)
}

func wholeLines(path string, n uint64) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	got := uint64(0)
	for text := range strings.Lines(string(b)) {
		got++
		if !strings.HasPrefix(text, "127.0.0.1 [") || !strings.HasSuffix(text, "\" \"0.000\"\n") {
			return fmt.Errorf("line %d is torn: %q", got, text)
		}
	}
	if got != n {
		return fmt.Errorf("%d lines in the file, %d counted", got, n)
	}
	return nil
}
