// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const valid = "stats: off\nlisteners:\n  - name: a\n    listen: \"127.0.0.1:19585\"\n    backends: [\"127.0.0.1:19537\"]\n"

// sluice runs the command line in-process; the default file is one that isn't there.
func sluice(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	e := env{
		stdin: strings.NewReader(""), stdout: &out, stderr: &errs,
		getenv: func(string) string { return "" }, defaultConfig: filepath.Join(t.TempDir(), "default.yaml"),
	}
	code = runIn(e, append([]string{"sluice"}, args...))
	return code, out.String(), errs.String()
}

func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "backends.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestUsage: whatever is wrong with the arguments, the error says what was
// meant, on stderr alone, and the exit code is 1.
func TestUsage(t *testing.T) {
	tests := []struct{ args, want string }{
		{"", "which command? one of: run, check, doctor"},
		{"rnu", `unknown command "rnu", did you mean "run"?`},
		{"chek", `unknown command "chek", did you mean "check"?`},
		{"stat", `unknown command "stat", did you mean "status"?`},
		{"rnu -c x", `unknown command "rnu", did you mean "run"?`},
		{"start", `unknown command "start"`},
		{"xyzzy", `unknown command "xyzzy", must be one of run, check`},
		{"help xyzzy", `unknown command "xyzzy"`},
		{"--version", "unknown flag --version, did you mean `sluice version`?"},
		{"-v", "unknown flag -v, did you mean `sluice version`?"},
		{"-t", "unknown flag -t, did you mean `sluice check`?"},
		{"--run", "unknown flag --run, did you mean `sluice run`?"},
		{"-c x run", "-c goes behind a command: sluice run -c"},
		{"--bogus", "unknown flag --bogus, must be a command first"},
		{"run extra", `run: unexpected argument "extra", did you mean "-c extra"?`},
		{"run --confg x", "run: unknown flag --confg, did you mean --config?"},
		{"run -c", "run: -c needs a value, such as -c /etc/sluice/backends.yaml"},
		{"check dump", `check: unexpected argument "dump", did you mean "--dump"?`},
		{"check x.yaml", `check: unexpected argument "x.yaml", did you mean "-c x.yaml"?`},
		{"check --dmp", "check: unknown flag --dmp, did you mean --dump?"},
		{"check --dump=maybe", `check: --dump is "maybe", must be such as --dump`},
		{"check --resolv", "check: unknown flag --resolv, did you mean --resolve?"},
		{"import", "import: which file? An nginx.conf or haproxy.cfg"},
		{"imprt x", `unknown command "imprt", did you mean "import"?`},
		{"import a b", `import: unexpected argument "b", it takes one file`},
		{"import /none/such.conf --strict", "import: open /none/such.conf: no such file or directory"},
		{"import a --stict", "import: unknown flag --stict, did you mean --strict?"},
		{"import --strct a", "import: unknown flag --strct, did you mean --strict?"},
		{"import -c a", "import: unknown flag -c"},
		{"import --strict=maybe a", `import: --strict is "maybe", must be such as --strict`},
		{"--strict", "--strict goes behind a command: sluice import --strict"},
		{"doctor x", `doctor: unexpected argument "x"`},
		{"doctor --json", "doctor: unknown flag --json"},
		{"selftest x", `selftest: unexpected argument "x", it takes none`},
		{"selftest --json", "selftest: unknown flag --json, it takes none but --help"},
		{"status x", `status: unexpected argument "x"`},
		{"status --jsn", "status: unknown flag --jsn, did you mean --json?"},
		{"status --stats", "status: --stats needs a value, such as --stats 127.0.0.1:9585"},
		{"status --stats nowhere", `--stats is "nowhere": no port`},
		{"status -c x --stats 127.0.0.1:1", "two ways to name the same address"},
		{"flows --limit x", `flows: --limit is "x", must be such as --limit 100`},
		{"flows --json=maybe", `flows: --json is "maybe", must be such as --json`},
		{"flows --limit 0", "flows: --limit is 0, must be from 1 to 10000"},
		{"flows --limit -1", "flows: --limit is -1, must be from 1 to 10000"},
		{"flows --sort size", `flows: --sort is "size", must be new, bytes, idle or age`},
		{"flows --limit 10001", "flows: --limit is 10001, must be from 1 to 10000"},
		{"demo x", `demo: unexpected argument "x", it takes none`},
		{"detach", "detach: which path? The one that forward.pin names"},
		{"detach /sys/fs/bpf/sl-none-such", "detach: nothing is pinned at /sys/fs/bpf/sl-none-such"},
		{"detach /a /b", `detach: unexpected argument "/b", it takes one path`},
		{"detach /a -c /none/such.yaml", "detach: /none/such.yaml:1:1: can't read the file"},
		{"detach /tmp", "detach: /tmp is on no BPF filesystem"},
		{"detach --cnofig x", "detach: unknown flag --cnofig, did you mean --config?"},
		{"version x", `version: unexpected argument "x", it takes none`},
		{"version --short", "version: unknown flag --short"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			code, out, errs := sluice(t, strings.Fields(tt.args)...)
			if code != 1 || out != "" || !strings.HasPrefix(errs, "sluice: "+tt.want) && !strings.Contains(errs, tt.want) {
				t.Errorf("exit %d, stdout %q, stderr %q; want 1, nothing, and %q", code, out, errs, tt.want)
			}
			if strings.Count(errs, "\n") != 1 {
				t.Errorf("stderr has %q, want one line", errs)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"-h"}, {"help"}, {"help", "run"}, {"run", "--help"}} {
		code, out, errs := sluice(t, args...)
		if code != 0 || errs != "" || !strings.Contains(out, "sluice") {
			t.Errorf("%v: exit %d, stderr %q, stdout %q", args, code, errs, out)
		}
	}
}

func TestCheck(t *testing.T) {
	good := file(t, valid)
	if code, out, errs := sluice(t, "check", "-c", good); code != 0 || out != good+": configuration is valid\n" || errs != "" {
		t.Errorf("exit %d, stdout %q, stderr %q", code, out, errs)
	}
	code, dump, errs := sluice(t, "check", "--dump", "--config", good)
	if code != 0 || errs != "" || !strings.Contains(dump, "fail_timeout: 10s") || strings.Contains(dump, "is valid") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, dump, errs)
	}
	if code, again, _ := sluice(t, "check", "--dump", "-c", file(t, dump)); code != 0 || again != dump {
		t.Errorf("the dump isn't its own dump: exit %d\n%s", code, again)
	}
	bad := file(t, "listeners: [")
	code, out, errs := sluice(t, "check", "-c", bad)
	if code != 1 || out != "" || !strings.HasPrefix(errs, bad+":1:") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, out, errs)
	}
	for line := range strings.Lines(errs) {
		if !strings.HasPrefix(line, bad+":") {
			t.Errorf("a line without its place: %q", line)
		}
	}
	code, out, errs = sluice(t, "check")
	if code != 1 || out != "" || !strings.Contains(errs, "default.yaml:1:1: ") {
		t.Errorf("without a file: exit %d, stdout %q, stderr %q", code, out, errs)
	}
}

// TestRunRefusals: what can't start says why and exits 1.
func TestRunRefusals(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.yaml")
	tests := []struct{ name, file, want string }{
		{"no file", missing, missing + ":1:1: "},
		{"bad file", file(t, "listeners: []\n"), ":1:"},
		{"log in no directory", file(t, "access_log: {path: /nonexistent/a.log, format: proxy}\n"+valid), "access_log: "},
		{"endpoint on a foreign address", file(t, strings.Replace(valid, "stats: off", "stats: 192.0.2.1:9585", 1)), "stats 192.0.2.1:9585: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// Without privileges, as run gives up its own for good.
			code, _, errs := again(t, "run", "-c", tt.file)
			if code != 1 || !strings.Contains(errs, tt.want) {
				t.Errorf("exit %d, stderr %q, want %q", code, errs, tt.want)
			}
		})
	}
}

// TestNobodyThere: the error names the address.
func TestNobodyThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	cfg := file(t, strings.Replace(valid, "stats: off", "stats: "+addr, 1))
	for _, args := range [][]string{
		{"status", "--stats", addr}, {"flows", "--stats", addr},
		{"status", "-c", cfg}, {"flows", "--json", "-c", cfg},
	} {
		code, out, errs := sluice(t, args...)
		if code != 1 || out != "" || !strings.Contains(errs, addr) {
			t.Errorf("%v: exit %d, stdout %q, stderr %q, want it to name %s", args, code, out, errs, addr)
		}
	}
	code, _, errs := sluice(t, "status", "-c", file(t, valid))
	if code != 1 || !strings.Contains(errs, "stats: off") {
		t.Errorf("exit %d, stderr %q", code, errs)
	}
	code, _, errs = sluice(t, "status", "-c", filepath.Join(t.TempDir(), "none.yaml"))
	if code != 1 || !strings.Contains(errs, "none.yaml:1:1") {
		t.Errorf("exit %d, stderr %q", code, errs)
	}
}

func TestVersion(t *testing.T) {
	code, out, errs := sluice(t, "version")
	if code != 0 || errs != "" || strings.Count(out, "\n") != 3 {
		t.Errorf("exit %d, stdout %q, stderr %q", code, out, errs)
	}
	for _, want := range []string{"sluice ", "go go1.", "kernel "} {
		if !strings.Contains(out, want) {
			t.Errorf("%q lacks %q", out, want)
		}
	}
}

// TestDemo plays the whole demonstration.
func TestDemo(t *testing.T) {
	code, out, errs := sluice(t, "demo")
	if code != 0 || errs != "" {
		t.Fatalf("exit %d, stderr %q, stdout %q", code, errs, out)
	}
	for _, want := range []string{"red", "green", "blue", "TCP 200", "13 sessions, 13 access-log lines"} {
		if !strings.Contains(out, want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
}

// TestJSONIsTheEndpoints: --json passes the answer on as it is.
func TestJSONIsTheEndpoints(t *testing.T) {
	addr, stop := serve(t)
	defer stop()
	code, out, errs := sluice(t, "status", "--json", "--stats", addr)
	var v map[string]any
	if code != 0 || errs != "" || json.Unmarshal([]byte(out), &v) != nil || v["listeners"] == nil {
		t.Errorf("exit %d, stderr %q, stdout %q", code, errs, out)
	}
	if code, out, errs = sluice(t, "status", "--stats", addr); code != 0 || !strings.Contains(out, "LISTENER") || errs != "" {
		t.Errorf("exit %d, stderr %q, stdout %q", code, errs, out)
	}
	if code, out, errs = sluice(t, "flows", "--json", "--limit", "5", "--stats", addr); code != 0 || strings.TrimSpace(out) != "[]" || errs != "" {
		t.Errorf("exit %d, stderr %q, stdout %q", code, errs, out)
	}
	if code, out, errs = sluice(t, "flows", "--stats", addr); code != 0 || !strings.Contains(out, "BACKEND") || errs != "" {
		t.Errorf("exit %d, stderr %q, stdout %q", code, errs, out)
	}
}
