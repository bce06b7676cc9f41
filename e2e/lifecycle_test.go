// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

const endFormat = "$status $end_reason"

func withReasons(i *instance) { i.format = endFormat }

// one is a configuration of one listener before these backends.
func one(front string, backends ...string) string {
	return fmt.Sprintf("listeners: [{name: l, listen: %q, backends: [%s]}]\n", front, quoted(backends))
}

func quoted(list []string) string {
	var q []string
	for _, s := range list {
		q = append(q, strconv.Quote(s))
	}
	return strings.Join(q, ", ")
}

func front(t testing.TB) string { return fmt.Sprintf("127.0.0.1:%d", freePort(t)) }

// pinger is a client that has a session and can see whether it still works.
type pinger struct {
	net.Conn
	n int
}

func ping(t testing.TB, addr string) *pinger {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	p := &pinger{Conn: c}
	if err := p.again(); err != nil {
		t.Fatal(err)
	}
	return p
}

// again sends a message of its own to an echoing backend and checks the answer.
func (p *pinger) again() error {
	p.n++
	msg := fmt.Sprintf("%08d", p.n)
	p.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(p, msg); err != nil {
		return err
	}
	b := make([]byte, len(msg))
	if _, err := io.ReadFull(p, b); err != nil {
		return err
	}
	if string(b) != msg {
		return fmt.Errorf("sent %q, got %q", msg, b)
	}
	return nil
}

// TestDrain: after SIGTERM nothing new is accepted, what is there goes on, and
// the end of the last session is the end.
func TestDrain(t *testing.T) {
	t.Parallel()
	addr := front(t)
	i := startWith(t, user{}, one(addr, tcp(t, echo).addr), withReasons)
	var clients []*pinger
	for range 5 {
		clients = append(clients, ping(t, addr))
	}
	if code, body := i.get("/healthz"); code != 200 || strings.TrimSpace(body) != "ok" {
		t.Errorf("/healthz: %d %q", code, body)
	}
	i.signal(unix.SIGTERM)
	eventually(t, func() string {
		c, err := net.DialTimeout("tcp", addr, patience)
		if err == nil {
			c.Close()
			return "the front port still accepts"
		}
		return ""
	})
	if code, body := i.get("/healthz"); code != 503 || strings.TrimSpace(body) != "stopping" {
		t.Errorf("/healthz while draining: %d %q", code, body)
	}
	if !i.notify.has("STOPPING=1") {
		t.Error("systemd was not told STOPPING=1")
	}
	for k, c := range clients {
		for _, still := range clients[k:] {
			if err := still.again(); err != nil {
				t.Errorf("a session was cut while draining: %v", err)
			}
		}
		if !i.running(0) {
			t.Fatal("ended with sessions left")
		}
		c.Close()
	}
	if code := i.exitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	ours := 0
	for _, line := range i.lines(5) {
		if line == "200 client_closed" {
			ours++
		}
	}
	if ours < 5 {
		t.Errorf("%d lines of drained sessions, want 5", ours)
	}
}

// TestCut: whatever ends the wait, each session that is cut gets its line, its
// client a reset, and the exit code is 0.
func TestCut(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		signals []unix.Signal
		timeout string
		least   time.Duration
	}{
		{"SIGINT", []unix.Signal{unix.SIGINT}, "30s", 0},
		{"SIGTERM twice", []unix.Signal{unix.SIGTERM, unix.SIGTERM}, "30s", 0},
		{"SIGTERM and SIGINT", []unix.Signal{unix.SIGTERM, unix.SIGINT}, "30s", 0},
		{"drain_timeout", []unix.Signal{unix.SIGTERM}, "1s", 900 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr := front(t)
			i := startWith(t, user{}, one(addr, tcp(t, echo).addr), func(i *instance) {
				withReasons(i)
				i.extra = "drain_timeout: " + c.timeout + "\n"
			})
			clients := []*pinger{ping(t, addr), ping(t, addr), ping(t, addr)}
			for range 40 { // the first one far enough for the kernel to have taken over
				if err := clients[0].again(); err != nil {
					t.Fatal(err)
				}
			}
			began := time.Now()
			for k, s := range c.signals {
				if k > 0 {
					time.Sleep(100 * time.Millisecond) // signals of one kind don't queue
				}
				i.signal(s)
			}
			if code := i.exitCode(); code != 0 {
				t.Errorf("exit code %d", code)
			}
			if took := time.Since(began); took < c.least || took > c.least+10*time.Second {
				t.Errorf("took %s, want %s and little more", took, c.least)
			}
			for _, p := range clients {
				if got := rest(p); got != `"" reset` {
					t.Errorf("a client saw %s, want a reset", got)
				}
			}
			if got := readLines(t, i.access); len(got) != 3 || strings.Join(got, "") != strings.Repeat("200 shutdown", 3) {
				t.Errorf("lines %q, want 3 of 200 shutdown", got)
			}
		})
	}
}

// TestRotate: after SIGUSR1 lines go to a new file, none is lost; if it can't
// be opened the old one stays.
func TestRotate(t *testing.T) {
	t.Parallel()
	addr := front(t)
	i := start(t, one(addr, tcp(t, echo).addr))
	ping(t, addr).Close()
	i.lines(1)
	if st, err := os.Stat(i.access); err != nil || st.Mode().Perm()&^0o640 != 0 {
		t.Errorf("the log's mode is %v (%v), want 0640 at most", st.Mode(), err)
	}
	if err := os.Rename(i.access, i.access+".1"); err != nil {
		t.Fatal(err)
	}
	ping(t, addr).Close()
	awaitLines(t, i.access+".1", 2)
	i.signal(unix.SIGUSR1)
	eventually(t, func() string {
		if _, err := os.Stat(i.access); err != nil {
			return err.Error()
		}
		return ""
	})
	ping(t, addr).Close()
	i.lines(1)

	if err := os.Rename(i.access, i.access+".2"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(i.access, 0o755); err != nil {
		t.Fatal(err)
	}
	i.signal(unix.SIGUSR1)
	eventually(t, func() string {
		for _, e := range i.stderr.entries(t) {
			if e["level"] == "error" {
				return ""
			}
		}
		return "no error in the own log"
	})
	ping(t, addr).Close()
	awaitLines(t, i.access+".2", 2)
}

// TestKill: after SIGKILL nothing of ours is left in the kernel, and the next
// instance binds at once.
func TestKill(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root to look at what is in the kernel")
	}
	addr := front(t)
	body := one(addr, tcp(t, echo).addr)
	i := start(t, body)
	p := ping(t, addr)
	for range 40 {
		if err := p.again(); err != nil {
			t.Fatal(err)
		}
	}
	held := i.kernelObjects()
	t.Logf("held: %v", held)
	if bpfWorks(t) && (len(held["prog_id"]) == 0 || len(held["map_id"]) == 0 || len(held["link_id"]) == 0) {
		t.Errorf("BPF works here, but these are all its objects: %v", held)
	}
	i.signal(unix.SIGKILL)
	<-i.exited
	allGone(t, held)
	next := start(t, one(addr, tcp(t, echo).addr))
	ping(t, addr).Close()
	next.lines(1)
}

// bpfWorks says whether this process could load a program.
func bpfWorks(t testing.TB) bool {
	t.Helper()
	return features.HaveProgramType(ebpf.SkLookup) == nil && features.HaveProgramType(ebpf.SkSKB) == nil
}

// TestOneOwner: a front port has one owner.
func TestOneOwner(t *testing.T) {
	t.Parallel()
	addr := front(t)
	i := start(t, one(addr, tcp(t, echo).addr))
	second := prepare(t, user{}, one(addr, tcp(t, echo).addr))
	second.launch(user{})
	if code := second.exitCode(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if said := second.stderr.String(); !strings.Contains(said, "address in use") || !strings.Contains(said, addr) {
		t.Errorf("it doesn't say that %s is in use: %s", addr, said)
	}
	ping(t, addr).Close()
	i.lines(1)
}

// TestUnixFront: a stale socket is replaced, a living one is not, and it is
// gone after the end.
func TestUnixFront(t *testing.T) {
	t.Parallel()
	path := tempDir(t, user{}) + "/front"
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	i := start(t, one("unix:"+path, tcp(t, answer).addr))
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o666 {
		t.Errorf("mode %v (%v), want 0666", st.Mode(), err)
	}
	if got := talk(t, dialer{"unix", path}); got != "response!" {
		t.Errorf("got %q", got)
	}
	second := prepare(t, user{}, one("unix:"+path, tcp(t, answer).addr))
	second.launch(user{})
	if code := second.exitCode(); code != 1 {
		t.Errorf("second owner: exit code %d, want 1", code)
	}
	if got := talk(t, dialer{"unix", path}); got != "response!" {
		t.Errorf("got %q", got)
	}
	i.signal(unix.SIGTERM)
	i.exitCode()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// TestNothingLeft: when the last session is over the process holds what it
// held before the first.
func TestNothingLeft(t *testing.T) {
	t.Parallel()
	for _, u := range users() {
		t.Run(u.name, func(t *testing.T) {
			addr := front(t)
			i := startAs(t, u, one(addr, tcp(t, echo).addr, tcp(t, echo).addr))
			ping(t, addr).Close() // whatever is made at the first use
			i.lines(1)
			count := func() map[string]int {
				if os.Geteuid() == 0 {
					return i.mapEntries()
				}
				return nil
			}
			fds, entries := i.fds(), count()
			var clients []*pinger
			for range 200 {
				clients = append(clients, ping(t, addr))
			}
			for range 40 {
				for _, c := range clients {
					if err := c.again(); err != nil {
						t.Fatal(err)
					}
				}
			}
			if n := i.fds(); n < fds+400 {
				t.Errorf("%d descriptors with 200 sessions, %d before", n, fds)
			}
			for _, c := range clients {
				c.Close()
			}
			i.lines(201)
			eventually(t, func() string {
				if n := i.fds(); n > fds+6 {
					return fmt.Sprintf("%d descriptors, %d before the first session", n, fds)
				}
				for name, n := range count() {
					if n > entries[name] {
						return fmt.Sprintf("%d entries in %s, %d before the first session", n, name, entries[name])
					}
				}
				return ""
			})
		})
	}
}

// TestPrivileges: every thread keeps the four capabilities at most.
func TestPrivileges(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("without root there is nothing to drop")
	}
	addr := front(t)
	i := start(t, one(addr, tcp(t, echo).addr))
	ping(t, addr).Close()
	i.keepsFew()
	if v := i.status("Uid"); len(v) != 1 {
		t.Errorf("threads of several users: %v", v)
	}
}

// keepsFew checks that every thread has what it serves with, at most.
func (i *instance) keepsFew() {
	i.t.Helper()
	const allowed = 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_BPF | 1<<unix.CAP_PERFMON | 1<<unix.CAP_NET_BIND_SERVICE
	for _, set := range []string{"CapEff", "CapPrm", "CapBnd"} {
		for value, threads := range i.status(set) {
			bits, err := strconv.ParseUint(value, 16, 64)
			if err != nil {
				i.t.Fatal(err)
			}
			if bits&^allowed != 0 {
				i.t.Errorf("%d threads have %s %s, more than %x", threads, set, value, uint64(allowed))
			}
		}
	}
	if v := i.status("NoNewPrivs"); len(v) != 1 || v["1"] == 0 {
		i.t.Errorf("NoNewPrivs of the threads: %v, want 1 everywhere", v)
	}
}
