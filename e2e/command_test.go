// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// command runs the binary and returns what it said and its exit code.
func command(t testing.TB, u user, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(os.Getenv(binaryVar), args...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: u.cred}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// TestMistakes: what was meant is said, and the exit code is 1.
func TestMistakes(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"rum"}, "run"},
		{[]string{"run", "--confg", "x"}, "config"},
		{[]string{"check", "stray.yaml"}, "-c"},
		{[]string{"check", "-c", "/nonexistent/backends.yaml"}, "/nonexistent/backends.yaml"},
		{[]string{"run", "-c", "/nonexistent/backends.yaml"}, "/nonexistent/backends.yaml"},
		{[]string{"status", "--stats", "127.0.0.1:1"}, "127.0.0.1:1"},
		{[]string{"flows", "--stats", "127.0.0.1:1"}, "127.0.0.1:1"},
		{[]string{"flows", "--limit", "many"}, "many"},
	} {
		stdout, stderr, code := command(t, user{}, c.args...)
		if code != 1 || !strings.Contains(stderr, c.says) || stdout != "" {
			t.Errorf("%v: exit code %d, stdout %q, stderr %q; want 1, nothing, and a word of %q", c.args, code, stdout, stderr, c.says)
		}
	}
}

// TestCheck: nginx -t for backends.yaml.
func TestCheck(t *testing.T) {
	t.Parallel()
	for _, u := range users() {
		dir := tempDir(t, u)
		good, bad := filepath.Join(dir, "good.yaml"), filepath.Join(dir, "bad.yaml")
		write := func(file, text string) {
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		write(good, `listeners: [{name: l, listen: ":80", backends: ["no.such.host.example:1"]}]`)
		write(bad, "listeners:\n  - name: l\n    listen: \":80\"\n    backends: [\"127.0.0.1:70000\"]\n    wieght: 3\n")
		stdout, stderr, code := command(t, u, "check", "-c", good)
		if code != 0 || stdout != good+": configuration is valid\n" || stderr != "" {
			t.Errorf("%s: good: %d, %q, %q", u.name, code, stdout, stderr)
		}
		stdout, stderr, code = command(t, u, "check", "-c", bad)
		lines := strings.Split(strings.TrimSpace(stderr), "\n")
		if code != 1 || stdout != "" || len(lines) != 2 || !strings.HasPrefix(lines[0], bad+":4:16: ") || !strings.HasPrefix(lines[1], bad+":5:5: ") {
			t.Errorf("%s: bad: %d, %q, %q", u.name, code, stdout, stderr)
		}
		dump, _, code := command(t, u, "check", "--dump", "-c", good)
		if code != 0 || !strings.Contains(dump, "connect_timeout") {
			t.Errorf("%s: dump: %d, %q", u.name, code, dump)
		}
		again := filepath.Join(dir, "dump.yaml")
		write(again, dump)
		if second, stderr, code := command(t, u, "check", "--dump", "-c", again); code != 0 || second != dump {
			t.Errorf("%s: the dump of a dump: %d, %q\n%s", u.name, code, stderr, second)
		}
	}
}

// TestStatusAndFlows ask a running instance.
func TestStatusAndFlows(t *testing.T) {
	t.Parallel()
	addr := front(t)
	b := tcp(t, echo).addr
	i := start(t, one(addr, b))
	p := ping(t, addr)
	defer p.Close()
	for _, args := range [][]string{{"status", "-c", i.conf}, {"status", "--stats", i.stats}, {"flows", "-c", i.conf}, {"flows", "--stats", i.stats}} {
		if stdout, stderr, code := command(t, user{}, args...); code != 0 || !strings.Contains(stdout, b) {
			t.Errorf("%v: %d, %q, %q", args, code, stdout, stderr)
		}
	}
	for _, what := range []string{"status", "flows"} {
		stdout, stderr, code := command(t, user{}, what, "--json", "-c", i.conf)
		if code != 0 || !json.Valid([]byte(stdout)) || !strings.Contains(stdout, b) {
			t.Errorf("%s --json: %d, %q, %q", what, code, stdout, stderr)
		}
	}
}

// TestDemo: a demonstration without configuration and without root, in time,
// that leaves nothing.
func TestDemo(t *testing.T) {
	for _, u := range users() {
		t.Run(u.name, func(t *testing.T) {
			before, _ := filepath.Glob(filepath.Join(os.TempDir(), "sluice*"))
			began := time.Now()
			stdout, stderr, code := command(t, u, "demo")
			if took := time.Since(began); code != 0 || took > 30*time.Second {
				t.Errorf("exit code %d after %s: %s", code, took, stderr)
			}
			lines := 0
			for line := range strings.Lines(stdout) {
				if proxyLine.MatchString(strings.TrimSpace(line)) {
					lines++
				}
			}
			if lines < 6 {
				t.Errorf("%d access-log lines:\n%s", lines, stdout)
			}
			if after, _ := filepath.Glob(filepath.Join(os.TempDir(), "sluice*")); len(after) > len(before) {
				t.Errorf("left behind: %v, before: %v", after, before)
			}
		})
	}
}

// TestDoctor says what could serve and why not something better.
func TestDoctor(t *testing.T) {
	for _, u := range users() {
		t.Run(u.name, func(t *testing.T) {
			stdout, stderr, code := command(t, u, "doctor")
			if code != 0 {
				t.Errorf("exit code %d: %s", code, stderr)
			}
			rungs := make(map[string]string)
			for line := range strings.Lines(stdout) {
				name, says, _ := strings.Cut(strings.TrimSpace(line), ": ")
				rungs[name] = says
			}
			for _, name := range []string{"dispatch", "nat", "offload", "splice", "relay"} {
				if says := rungs[name]; !strings.HasPrefix(says, "yes") && !strings.HasPrefix(says, "no") {
					t.Errorf("%s: %q, want yes or no and why", name, says)
				}
			}
			if !strings.HasPrefix(rungs["relay"], "yes") {
				t.Errorf("relay: %q", rungs["relay"])
			}
			if u.cred != nil {
				for _, name := range []string{"dispatch", "splice"} {
					if !strings.HasPrefix(rungs[name], "no") || !strings.Contains(rungs[name], "CAP_BPF") {
						t.Errorf("%s without privileges: %q, want no, naming CAP_BPF", name, rungs[name])
					}
				}
			}
		})
	}
}

// TestSelftest: its table, and an exit code that says whether splice is safe.
func TestSelftest(t *testing.T) {
	stdout, stderr, code := command(t, user{}, "selftest")
	if os.Geteuid() == 0 && bpfWorks(t) && code != 0 {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	if lines := strings.Count(stdout, "\n"); lines < 2 {
		t.Errorf("no table: %q", stdout)
	}
	if os.Geteuid() == 0 {
		if stdout, _, code := command(t, nobody(), "selftest"); code != 1 || !strings.Contains(stdout, "CAP_BPF") {
			t.Errorf("without privileges: %d, %q; want 1, naming CAP_BPF", code, stdout)
		}
	}
}

// TestWithoutPrivileges: the own log says which datapath serves and what is
// missing, and sessions are as they are with them (the other tests run as
// nobody, too).
func TestWithoutPrivileges(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("every test runs without privileges here")
	}
	addr := front(t)
	i := startWith(t, nobody(), one(addr, tcp(t, echo).addr), func(i *instance) { i.format = "$status $datapath $bytes_spliced" })
	p := ping(t, addr)
	for range 40 {
		if err := p.again(); err != nil {
			t.Fatal(err)
		}
	}
	p.Close()
	if got := i.lines(1)[0]; got != "200 relay 0" {
		t.Errorf("line %q", got)
	}
	warned, listening := false, false
	for _, e := range i.stderr.entries(t) {
		text, _ := json.Marshal(e)
		if e["level"] == "warn" && strings.Contains(string(text), "CAP_BPF") {
			warned = true
		}
		if e["listener"] == "l" && e["datapath"] == "relay" && e["reason"] != "" {
			listening = true
		}
	}
	if !warned || !listening {
		t.Errorf("a warning that names the capability: %v; the listener's datapath and reason: %v", warned, listening)
	}
}
