// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSignalsInNumbers: whatever was sent before it, and however busy sluice is
// with that, a signal that ends the process is served.
func TestSignalsInNumbers(t *testing.T) {
	// An edit of this file takes a while.
	var many strings.Builder
	for k := range 4000 {
		fmt.Fprintf(&many, "\"127.1.%d.%d:9\", ", k/250, k%250)
	}
	addr := front(t)
	i := start(t, fmt.Sprintf("listeners: [{name: l, listen: %q, backends: [%s]}]\n", addr, strings.TrimSuffix(many.String(), ", ")))
	for range 200 {
		i.signal(unix.SIGHUP)
		i.signal(unix.SIGUSR1)
		time.Sleep(200 * time.Microsecond) // the kernel makes one of equal ones that wait
	}
	i.signal(unix.SIGTERM)
	if code := i.exitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestQuit: SIGQUIT is a SIGTERM. The first one waits for the sessions, the
// second one cuts them, and each has its line.
func TestQuit(t *testing.T) {
	t.Parallel()
	addr := front(t)
	i := startWith(t, user{}, one(addr, tcp(t, echo).addr), withReasons)
	ends, stays := ping(t, addr), ping(t, addr)
	i.signal(unix.SIGQUIT)
	eventually(t, func() string {
		if code, _ := i.get("/healthz"); code != 503 {
			return fmt.Sprintf("/healthz says %d", code)
		}
		return ""
	})
	if err := ends.again(); err != nil {
		t.Errorf("a session was cut by the first SIGQUIT: %v", err)
	}
	ends.Close()
	i.lines(1)
	i.signal(unix.SIGQUIT)
	if code := i.exitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if err := stays.again(); err == nil {
		t.Error("the second SIGQUIT left a session")
	}
	if got := i.lines(2); !strings.Contains(got[1], "shutdown") {
		t.Errorf("the log has %q", got)
	}
	if strings.Contains(i.stderr.String(), "goroutine ") {
		t.Error("goroutines were dumped")
	}
}

// TestSignalsAtStart: a start that waits for something can be ended, and
// signals that came meanwhile are served after it.
func TestSignalsAtStart(t *testing.T) {
	t.Parallel()
	a, b, addr := tcp(t, echo).addr, tcp(t, echo).addr, front(t)
	writing := func(t *testing.T) (*instance, *os.File) {
		i := prepare(t, user{}, "")
		f, err := os.OpenFile(i.conf, os.O_WRONLY|os.O_TRUNC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		i.launch(user{})
		// Signals are taken from the moment at which the file is looked at.
		eventually(t, func() string {
			fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", i.cmd.Process.Pid))
			for _, fd := range fds {
				if to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", i.cmd.Process.Pid, fd.Name())); strings.Contains(to, "inotify") {
					return ""
				}
			}
			return "no watch"
		})
		fmt.Fprint(f, "# begun\n")
		return i, f
	}
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGQUIT} {
		t.Run(unix.SignalName(sig), func(t *testing.T) {
			i, _ := writing(t)
			i.signal(sig)
			if code := i.exitCode(); code != 0 {
				t.Errorf("exit code %d: %s", code, i.stderr)
			}
		})
	}
	t.Run("SIGHUP", func(t *testing.T) {
		i, f := writing(t)
		i.signal(unix.SIGHUP)
		i.signal(unix.SIGUSR1)
		fmt.Fprint(f, i.text(one(addr, a)))
		f.Close()
		i.awaitReady()
		eventually(t, func() string {
			if n := i.metric(`sluice_config_reloads_total{result="ok"}`); n < 1 {
				return "the SIGHUP was lost"
			}
			if !strings.Contains(i.stderr.String(), "log reopened") {
				return "the SIGUSR1 was lost"
			}
			return ""
		})
		i.write(one(addr, b))
		i.loaded("l", b)
	})
}
