// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestDoctor(t *testing.T) {
	code, out, errs := sluice(t, "doctor")
	if code != 0 || errs != "" {
		t.Errorf("exit %d, stderr %q", code, errs)
	}
	for _, name := range []string{"dispatch: ", "nat: no, not in this version", "offload: ", "splice: ", "relay: yes"} {
		if !strings.Contains("\n"+out, "\n"+name) {
			t.Errorf("no line for %q in %q", name, out)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := file(t, strings.Replace(valid, "127.0.0.1:19585", l.Addr().String(), 1))
	code, out, _ = sluice(t, "doctor", "-c", taken)
	if code != 1 || !strings.Contains(out, "listener a, "+l.Addr().String()+": no, ") {
		t.Errorf("with a taken port: exit %d, stdout %q", code, out)
	}
	log := filepath.Join(t.TempDir(), "a.log")
	code, out, _ = sluice(t, "doctor", "-c", file(t, "access_log: {path: "+log+", format: proxy}\n"+valid))
	if code != 0 || !strings.Contains(out, "access log "+log+": yes") {
		t.Errorf("exit %d, stdout %q", code, out)
	}
	if _, err := os.Stat(log); err == nil {
		t.Error("doctor created the access log")
	}
}

// TestDoctorBesideARunningSluice: addresses held by a sluice that serves the
// same file are fine, however that can be known; held by anybody else they
// aren't.
func TestDoctorBesideARunningSluice(t *testing.T) {
	for name, c := range map[string]struct {
		stats    string // "": an address of its own
		relative bool   // the file is given as a relative path
	}{
		"by its endpoint":                     {},
		"by its endpoint, relative path":      {relative: true},
		"by its descriptors":                  {stats: "off"},
		"by its descriptors, relative path":   {stats: "off", relative: true},
		"an edit has moved its endpoint away": {stats: "moved"},
	} {
		t.Run(name, func(t *testing.T) {
			addr, socket := freeAddr(t), filepath.Join(t.TempDir(), "front")
			text := strings.Replace(valid, `listen: "127.0.0.1:19585"`, fmt.Sprintf("listen: [%q, \"unix:%s\"]", addr, socket), 1)
			moved := text
			if c.stats != "off" {
				moved = strings.Replace(text, "stats: off", "stats: "+freeAddr(t), 1)
				text = strings.Replace(text, "stats: off", "stats: "+freeAddr(t), 1)
			}
			cfg := file(t, text)
			given := cfg
			if c.relative {
				given = filepath.Base(cfg)
			}
			pid := running(t, addr, filepath.Dir(cfg), given)
			if c.stats == "moved" {
				// In place of a rename: the process's own file is the one examined,
				// and its close comes only after doctor.
				f, err := os.OpenFile(cfg, os.O_WRONLY, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				if _, err := f.WriteString(moved); err != nil {
					t.Fatal(err)
				}
			}
			code, out, errs := sluice(t, "doctor", "-c", cfg)
			if code != 0 || errs != "" {
				t.Errorf("exit %d, stderr %q, stdout:\n%s", code, errs, out)
			}
			for _, a := range []string{addr, "unix:" + socket} {
				want := fmt.Sprintf("listener a, %s: yes, held by the running sluice, pid %d, which serves this file\n", a, pid)
				if !strings.Contains(out, want) {
					t.Errorf("want %q in:\n%s", want, out)
				}
			}
			if c.stats == "" && strings.Count(out, fmt.Sprintf("pid %d", pid)) != 3 {
				t.Errorf("want the same of the endpoint's address:\n%s", out)
			}
			other := file(t, text) // the same text, but not the file that is served
			code, out, _ = sluice(t, "doctor", "-c", other)
			if code != 1 || !strings.Contains(out, "listener a, "+addr+": no, ") || !strings.Contains(out, fmt.Sprintf("pid %d", pid)) {
				t.Errorf("another file with the same address: exit %d, want 1, naming pid %d:\n%s", code, pid, out)
			}
		})
	}
}

// running starts a sluice in dir and waits until it serves addr.
func running(t *testing.T, addr, dir, cfg string) (pid int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "run", "-c", cfg)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), asSluice+"=1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGINT)
		_ = cmd.Wait()
	})
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return cmd.Process.Pid
		}
		if time.Now().After(end) {
			t.Fatalf("sluice doesn't serve: %v", err)
		}
	}
}

// TestDoctorOfPorts: neighbours of a range that fare alike are one line.
func TestDoctorOfPorts(t *testing.T) {
	_, out, _ := sluice(t, "doctor", "-c", file(t, strings.Replace(valid, "127.0.0.1:19585", "127.0.0.1:19600-19610", 1)))
	if want := "listener a, 127.0.0.1:19600 to 127.0.0.1:19610: yes, can be bound\n"; !strings.Contains(out, want) {
		t.Errorf("want %q in:\n%s", want, out)
	}
}

// TestDoctorOfAPipe: a FIFO that nobody reads is a log, as sluice reads it itself.
func TestDoctorOfAPipe(t *testing.T) {
	log := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(log, 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, _ := sluice(t, "doctor", "-c", file(t, "access_log: {path: "+log+", format: proxy}\n"+valid))
	if code != 0 || !strings.Contains(out, "access log "+log+": yes") {
		t.Errorf("exit %d:\n%s", code, out)
	}
}
