// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rs/zerolog"
)

// TestDrain: SIGTERM refuses new sessions and edits, and lets the live ones end.
func TestDrain(t *testing.T) {
	a, front := backend(t, "a"), freeAddr(t)
	r := newRig(t, two(front, a))
	s := open(t, front)
	r.signals.Send(syscall.SIGTERM)
	eventually(t, "stopping", r.s.Stopping)
	eventually(t, "the port is closed", func() bool {
		c, err := net.Dial("tcp", front)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	r.signals.Send(syscall.SIGHUP)
	if !s.alive() {
		t.Fatal("draining cut a session")
	}
	select {
	case <-r.reloads:
		t.Error("an edit was taken over while stopping")
	default:
	}
	s.Close()
	r.wait()
	// The dials above may have been sessions too, from the accept queue.
	lines := r.lines()
	if got := lines[len(lines)-1]; !strings.Contains(got, `"client_closed"`) || !strings.Contains(got, `"bytes_received":5`) {
		t.Errorf("the log ends with %s", got)
	}
}

// TestReset: SIGINT, a second SIGTERM and the end of drain_timeout cut what is
// left, each with its line.
func TestReset(t *testing.T) {
	for name, signals := range map[string][]os.Signal{
		"SIGINT":             {syscall.SIGINT},
		"SIGTERM twice":      {syscall.SIGTERM, syscall.SIGTERM},
		"SIGTERM and SIGINT": {syscall.SIGTERM, syscall.SIGINT},
		"context":            nil,
		"drain_timeout":      {syscall.SIGTERM},
	} {
		t.Run(name, func(t *testing.T) {
			a, front := backend(t, "a"), freeAddr(t)
			r := newRig(t, two(front, a))
			if name == "drain_timeout" {
				old := r.file + ".old"
				b, err := os.ReadFile(r.file)
				if err != nil {
					t.Fatal(err)
				}
				os.WriteFile(old, []byte(strings.Replace(string(b), "5s", "100ms", 1)), 0o600)
				os.Rename(old, r.file)
				if err := r.reloaded(); err != nil {
					t.Fatal(err)
				}
			}
			s := open(t, front)
			for _, sig := range signals {
				r.signals.Send(sig)
			}
			if signals == nil {
				r.cancel()
			}
			if !s.reset() {
				t.Error("the session wasn't reset")
			}
			r.wait()
			if got := r.lines(); len(got) != 1 || !strings.Contains(got[0], `"shutdown"`) || !strings.Contains(got[0], "200") {
				t.Errorf("the log has %v", got)
			}
		})
	}
}

// TestStartFails: nothing is left open of a start that fails at its last step
// (TestMain counts descriptors), and the error names the item.
func TestStartFails(t *testing.T) {
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, "backends.yaml")
	content := "access_log: {path: " + dir + "/a.log, format: proxy}\nstats: " + freeAddr(t) + "\n" + two(taken.Addr().String(), "127.0.0.1:1")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	s := New(Options{ConfigFile: file, Unprivileged: true})
	err = s.Run(context.Background(), nil)
	if err == nil || !strings.Contains(err.Error(), taken.Addr().String()) || !strings.Contains(err.Error(), "address in use") {
		t.Errorf("got %v", err)
	}
}

// TestEventsAreCounted: the same event is written at once, then at most once a
// second, and none is lost from the count.
func TestEventsAreCounted(t *testing.T) {
	b := &syncBuffer{}
	l := newEventLog(zerolog.New(b))
	for range 100 {
		l.post(event{level: zerolog.WarnLevel, msg: "backend ejected", pool: "p", backend: "b"})
	}
	l.post(event{level: zerolog.WarnLevel, msg: "backend ejected", pool: "p", backend: "other"})
	eventually(t, "both events", func() bool { return strings.Contains(b.String(), `"other"`) })
	if got := strings.Count(b.String(), "\n"); got > 3 {
		t.Errorf("%d lines at once: %s", got, b.String())
	}
	l.mu.Lock()
	for l.running {
		l.idle.Wait()
	}
	l.mu.Unlock()
	sum := 0
	for line := range strings.Lines(b.String()) {
		if strings.Contains(line, `"backend":"b"`) {
			sum += countOf(t, line)
		}
	}
	if sum != 100 {
		t.Errorf("counted %d of 100: %s", sum, b.String())
	}
	if n := strings.Count(b.String(), `"backend":"b"`); n > 3 {
		t.Errorf("%d lines for one event within two seconds", n)
	}
}

func countOf(t *testing.T, line string) int {
	t.Helper()
	var v struct{ Count int }
	if err := json.Unmarshal([]byte(line), &v); err != nil {
		t.Fatal(err)
	}
	return v.Count
}
