// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long something that should happen at once may take on a
// machine that has much else to do.
const patience = 20 * time.Second

// instance is a running sluice.
type instance struct {
	t      testing.TB
	dir    string
	conf   string
	access string
	format string // of the access log
	extra  string // further top-level lines of the configuration
	wrap   string // a shell's way of starting it, with the command as its arguments
	stats  string // address of the statistics endpoint
	cmd    *exec.Cmd
	stderr *output
	notify *notices
	exited chan struct{} // closed once it has been waited for
}

// user runs an instance with other rights than the test's.
type user struct {
	name string
	cred *syscall.Credential // nil: as the test
}

func nobody() user {
	return user{"nobody", &syscall.Credential{Uid: 65534, Gid: 65534, NoSetGroups: true}}
}

// users are those that a test can run sluice as; without root only its own.
func users() []user {
	list := []user{{name: "self"}}
	if os.Geteuid() == 0 {
		list = append(list, nobody())
	}
	return list
}

// start runs sluice with a configuration of these listeners and pools, and
// waits until its ports are bound. It is stopped at the test's end.
func start(t testing.TB, body string) *instance { return startAs(t, user{}, body) }

func startAs(t testing.TB, u user, body string) *instance {
	t.Helper()
	return startWith(t, u, body, nil)
}

// startWith lets change adjust the instance before its file is written.
func startWith(t testing.TB, u user, body string, change func(*instance)) *instance {
	t.Helper()
	i := prepare(t, u, body)
	if change != nil {
		change(i)
		i.write(body)
	}
	i.launch(u)
	i.awaitReady()
	return i
}

// prepare writes the configuration of an instance that is not started yet.
func prepare(t testing.TB, u user, body string) *instance {
	t.Helper()
	dir := tempDir(t, u)
	i := &instance{
		t: t, dir: dir, conf: filepath.Join(dir, "backends.yaml"), access: filepath.Join(dir, "access.log"),
		stats: fmt.Sprintf("127.0.0.1:%d", freePort(t)), format: "proxy",
		stderr: &output{}, exited: make(chan struct{}),
	}
	i.write(body)
	return i
}

// tempDir is a directory in which u may write.
func tempDir(t testing.TB, u user) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sl-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if u.cred != nil {
		if err := os.Chown(dir, int(u.cred.Uid), int(u.cred.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// text is the whole file for these listeners and pools.
func (i *instance) text(body string) string {
	return fmt.Sprintf("access_log: {path: %q, format: '%s'}\nstats: %q\n%s%s", i.access, i.format, i.stats, i.extra, body)
}

// write replaces the configuration as editors do: a new file renamed into place.
func (i *instance) write(body string) {
	i.t.Helper()
	i.writeRaw(i.text(body))
}

func (i *instance) writeRaw(text string) {
	i.t.Helper()
	next := i.conf + ".new"
	if err := os.WriteFile(next, []byte(text), 0o644); err != nil {
		i.t.Fatal(err)
	}
	if err := os.Rename(next, i.conf); err != nil {
		i.t.Fatal(err)
	}
}

// launch starts the process.
func (i *instance) launch(u user) {
	i.t.Helper()
	i.notify = listenNotices(i.t, i.dir)
	args := []string{os.Getenv(binaryVar), "run", "-c", i.conf}
	if i.wrap != "" {
		args = append([]string{"/bin/sh", "-c", i.wrap}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+i.notify.path)
	cmd.Stdout, cmd.Stderr = i.stderr, i.stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: u.cred}
	if err := cmd.Start(); err != nil {
		i.t.Fatal(err)
	}
	i.cmd = cmd
	go func() {
		cmd.Wait()
		close(i.exited)
	}()
	i.t.Cleanup(i.end)
}

// end stops an instance that still runs, and judges what it said.
func (i *instance) end() {
	select {
	case <-i.exited:
	default:
		i.cmd.Process.Signal(unix.SIGINT)
		select {
		case <-i.exited:
		case <-time.After(patience):
			i.t.Errorf("sluice didn't end within %s of SIGINT", patience)
			i.cmd.Process.Signal(unix.SIGABRT) // which has Go print its goroutines
			<-i.exited
		}
	}
	i.notify.close()
	said := i.stderr.String()
	if strings.Contains(said, "DATA RACE") || strings.Contains(said, "panic:") || strings.Contains(said, "fatal error:") {
		i.t.Error("sluice has a bug; see its log")
	}
	if i.t.Failed() {
		if len(said) > 20000 {
			said = said[:10000] + "\n...\n" + said[len(said)-10000:]
		}
		i.t.Logf("sluice said:\n%s", said)
	}
}

func (i *instance) awaitReady() {
	i.t.Helper()
	select {
	case <-i.notify.ready:
	case <-i.exited:
		i.t.Fatalf("sluice ended at once: %s\n%s", i.cmd.ProcessState, i.stderr)
	case <-time.After(patience):
		i.t.Fatalf("sluice isn't ready after %s:\n%s", patience, i.stderr)
	}
}

// signal sends it a signal.
func (i *instance) signal(s unix.Signal) {
	i.t.Helper()
	if err := i.cmd.Process.Signal(s); err != nil {
		i.t.Fatal(err)
	}
}

// exitCode waits for the end.
func (i *instance) exitCode() int {
	i.t.Helper()
	select {
	case <-i.exited:
	case <-time.After(patience):
		i.t.Fatalf("still running after %s", patience)
	}
	return i.cmd.ProcessState.ExitCode()
}

// running says whether the process is still there after d.
func (i *instance) running(d time.Duration) bool {
	select {
	case <-i.exited:
		return false
	case <-time.After(d):
		return true
	}
}

// lines waits for n lines in the access log and returns all there are.
func (i *instance) lines(n int) []string {
	i.t.Helper()
	return awaitLines(i.t, i.access, n)
}

func awaitLines(t testing.TB, file string, n int) []string {
	t.Helper()
	var got []string
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		got = readLines(t, file)
		if len(got) >= n {
			return got
		}
		if time.Now().After(end) {
			t.Fatalf("%d lines in %s, want %d:\n%s", len(got), filepath.Base(file), n, strings.Join(got, "\n"))
		}
	}
}

// readLines are the file's complete lines.
func readLines(t testing.TB, file string) []string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
		return strings.Split(string(b[:i]), "\n")
	}
	return nil
}

// output collects what a process says. Safe for use while it speaks.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// entry is a line of sluice's own log.
type entry map[string]any

// entries are the lines of the own log so far.
func (o *output) entries(t testing.TB) []entry {
	t.Helper()
	var list []entry
	s := bufio.NewScanner(strings.NewReader(o.String()))
	for s.Scan() {
		var e entry
		if err := json.Unmarshal(s.Bytes(), &e); err != nil {
			t.Errorf("a line of the own log is no JSON object: %q", s.Text())
			continue
		}
		list = append(list, e)
	}
	return list
}

// get fetches a path of the statistics endpoint.
func (i *instance) get(path string) (int, string) {
	i.t.Helper()
	code, body, err := i.fetch(path)
	if err != nil {
		i.t.Fatal(err)
	}
	return code, body
}

// fetch is get from any goroutine.
func (i *instance) fetch(path string) (code int, body string, err error) {
	c := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := c.Get("http://" + i.stats + path)
	if err != nil {
		return 0, "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return r.StatusCode, string(b), err
}

// freePort is a port that nobody has, outside the ranges for outgoing connections, the
// kernel's and that of sessions that are forwarded (10240 and up), so that none takes it
// before it is bound.
func freePort(t testing.TB) int { t.Helper(); return freePorts(t, 1) }

// freePorts is the first of n such ports in a row. No other test of this process is
// given, or looks at, one of them: looking binds it for a moment.
func freePorts(t testing.TB, n int) int {
	t.Helper()
	for range 500 {
		end := int(portCounter.Add(uint32(n))+uint32(os.Getpid())*7) % 8000
		first := 2200 + end - n
		free := 0
		for end >= n && free < n && portFree(first+free) {
			free++
		}
		if free == n {
			return first
		}
	}
	t.Fatalf("no %d free ports in a row", n)
	return 0
}

func portFree(p int) bool {
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", p))
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// eventually waits until f says that all is well ("").
func eventually(t testing.TB, f func() string) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		wrong := f()
		if wrong == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("after %s: %s", patience, wrong)
		}
	}
}
