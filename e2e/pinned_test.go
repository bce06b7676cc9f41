// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/internal/netrig"
	"sluice/internal/nstest"
)

// pinned is a sluice whose forwarded sessions outlive it.
type pinned struct {
	*onHosts
	path, options string
}

// pinFormat is offloadFormat and what a later process can know of a session only from
// the one before.
const pinFormat = offloadFormat + ` $remote_addr $upstream_addr $session_time $upstream_connect_time $connection $upstream_rtt`

func startPinned(t *testing.T, options string) *pinned {
	t.Helper()
	return startPinnedAs(t, options, "")
}

// startPinnedAs has a shell start each of its processes so (instance.wrap).
func startPinnedAs(t *testing.T, options, wrap string) *pinned {
	t.Helper()
	path := nstest.PinPath(t)
	h := startOnHostsWith(t, false, netrig.Options{}, options, "forward: {pin: "+path+"}\n", func(i *instance) { i.format, i.wrap = pinFormat, wrap })
	return &pinned{h, path, options}
}

// body is the file, with other options of the listener.
func (p *pinned) body(options string) string {
	return p.file(options, "forward: {pin: "+p.path+"}\n")
}

// again starts the next process on the same files.
func (p *pinned) again(body string) {
	p.t.Helper()
	next := &instance{
		t: p.t, dir: p.dir, conf: p.conf, access: p.access, stats: p.stats, format: p.format, wrap: p.wrap,
		stderr: &output{}, exited: make(chan struct{}),
	}
	p.instance = next
	next.write(body)
	next.launch(user{})
	next.awaitReady()
}

// stop ends the process so.
func (p *pinned) stop(s unix.Signal) {
	p.t.Helper()
	p.signal(s)
	if code := p.exitCode(); s != unix.SIGKILL && code != 0 {
		p.t.Errorf("exit %d after %s", code, s)
	}
}

// endLine closes the session and checks its line: n messages each way.
func (p *pinned) endLine(c *net.TCPConn, n int) {
	p.t.Helper()
	c.Close()
	p.check(p.lines(1), "200 client_closed offload", n)
}

// check compares the only line.
func (p *pinned) check(lines []string, begins string, n int) (fields []string) {
	p.t.Helper()
	f := strings.Fields(lines[0])
	bytes := strconv.Itoa(8 * n)
	if len(lines) != 1 || len(f) != 12 || strings.Join(f[:3], " ") != begins || f[3] != bytes || f[4] != bytes || f[5] == "0" ||
		f[6] != p.rig.Client.V4[0].String() || !strings.HasSuffix(f[7], ":7000") || f[9] == "-" || f[10] == "0" || f[11] == "-" {
		p.t.Fatalf("the log says %q, want one line, %s and %s bytes each way", lines, begins, bytes)
	}
	return f
}

// TestPinned: a forwarded session goes on while no process has it, however the process
// ended, and the next one logs it.
func TestPinned(t *testing.T) {
	t.Parallel()
	for _, s := range []unix.Signal{unix.SIGKILL, unix.SIGTERM, unix.SIGINT} {
		t.Run(unix.SignalName(s), func(t *testing.T) {
			p := startPinned(t, "")
			c, n := p.forwarded()
			time.Sleep(50 * time.Millisecond) // its sockets are let go
			p.stop(s)
			for range 100 {
				p.exchange(c)
			}
			if d, err := p.rig.Client.Dial(t.Context(), netip.Addr{}, p.addr); err == nil {
				d.Close()
				t.Error("a new connection is served while there is no process")
			}
			if got := readLines(t, p.access); len(got) != 0 {
				t.Errorf("lines of a session that lives: %q", got)
			}
			p.again(p.body(p.options))
			if l := p.doc().Listeners[0]; l.Active != 1 {
				t.Errorf("%+v, want one session", l)
			}
			for range 100 {
				p.exchange(c)
			}
			other := p.dial()
			for range 20 {
				p.exchange(other)
			}
			other.Close()
			p.lines(1)
			os.Truncate(p.access, 0)
			p.endLine(c, n+200)
			eventually(t, func() string {
				if n := p.metric("sluice_forward_flows"); n != 0 {
					return fmt.Sprintf("%v records are still in use", n)
				}
				return ""
			})
			p.stop(unix.SIGTERM)
		})
	}
}

// TestPinnedEnds: a session that ends while no process has it is logged by the next one,
// with its own time, and nothing of it is left.
func TestPinnedEnds(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]struct {
		do     func(c *net.TCPConn)
		begins string
	}{
		"by the client":            {func(c *net.TCPConn) { c.Close() }, "200 client_closed offload"},
		"by a reset of the client": {func(c *net.TCPConn) { c.SetLinger(0); c.Close() }, "200 client_reset offload"},
	} {
		t.Run(name, func(t *testing.T) {
			p := startPinned(t, "")
			began := time.Now()
			c, n := p.forwarded()
			p.acknowledged(n)
			p.stop(unix.SIGKILL)
			p.exchange(c)
			time.Sleep(50 * time.Millisecond) // for the last acknowledgement
			end.do(c)
			lasted := time.Since(began)
			time.Sleep(time.Second)
			p.again(p.body(""))
			f := p.check(p.lines(1), end.begins, n+1)
			if s, err := strconv.ParseFloat(f[8], 64); err != nil || s > lasted.Seconds()+0.1 || s < 0.05 {
				t.Errorf("the session took %s s, want %.3f s at most: it ended before this process began", f[8], lasted.Seconds())
			}
			eventually(t, func() string {
				if n := p.metric("sluice_forward_flows"); n != 0 {
					return fmt.Sprintf("%v records are still in use", n)
				}
				return ""
			})
			p.stop(unix.SIGTERM)
		})
	}
}

// TestPinnedIsEdited: the next process may have another file. What it doesn't have any
// more is as if an edit had taken it away.
func TestPinnedIsEdited(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		file func(p *pinned) string
		want string // what the line of the session begins with, if it ends at once; "": it goes on
	}{
		"the listener is gone": {file: func(p *pinned) string {
			return fmt.Sprintf("forward: {pin: %s}\nlisteners: [{name: other, listen: '%s', backends: [%s]}]\n", p.path, p.addr, quoted(p.backends))
		}},
		"no listener may offload": {file: func(p *pinned) string { return p.body(", datapath: splice") }},
		"a backend is gone":       {file: func(p *pinned) string { return p.only("") }},
		"a backend is gone, which closes": {
			file: func(p *pinned) string { return p.only(", on_remove: close") }, want: "200 removed offload",
		},
		"the clients are refused": {
			file: func(p *pinned) string { return p.body(", deny: [all], on_datapath: close") }, want: "200 removed offload",
		},
		"fewer flows": {file: func(p *pinned) string {
			return p.file("", "forward: {max_flows: 10, pin: "+p.path+"}\n")
		}},
		"it has been idle for too long": {
			file: func(p *pinned) string { return p.body(", idle_timeout: 100ms") }, want: "200 idle_timeout offload",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := startPinned(t, "")
			c, n := p.forwarded()
			p.acknowledged(n)
			p.stop(unix.SIGTERM)
			p.again(tt.file(p))
			if tt.want != "" {
				p.check(p.lines(1), tt.want, n)
				if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("the client sees %v, want a reset", err)
				}
			} else {
				p.exchange(c)
				if _, body := p.get("/flows"); !strings.Contains(body, `"listener": "l"`) && !strings.Contains(body, `"listener":"l"`) {
					t.Errorf("/flows: %s", body)
				}
				p.endLine(c, n+1)
			}
			p.stop(unix.SIGTERM)
		})
	}
}

// only is a file without the backend that the first session is on.
func (p *pinned) only(option string) string {
	return fmt.Sprintf("forward: {pin: %s}\npools: {l: {backends: [%s]%s}}\nlisteners: [{name: l, listen: '%s', pool: l}]\n",
		p.path, quoted(p.backends[1:]), option, p.addr)
}

// TestPinnedCounts: sessions of the process before count for limits, those that end while
// there is none don't.
func TestPinnedCounts(t *testing.T) {
	t.Parallel()
	p := startPinned(t, ", max_conns: 2")
	first, _ := p.forwarded()
	second := p.dial()
	eventually(t, func() string {
		p.exchange(second)
		if _, body := p.get("/flows"); strings.Count(body, `"offload"`) != 2 {
			return "both sessions should be forwarded: " + body
		}
		return ""
	})
	p.stop(unix.SIGTERM)
	first.Close()
	time.Sleep(100 * time.Millisecond)
	p.again(p.body(", max_conns: 2"))
	third := p.dial()
	p.exchange(third)
	fourth := p.dial()
	fourth.Write([]byte("12345678"))
	if n, err := fourth.Read(make([]byte, 8)); err == nil {
		t.Errorf("a session beyond max_conns: 2 is served %d bytes", n)
	}
	p.exchange(second)
	for _, c := range []*net.TCPConn{second, third} {
		c.Close()
	}
	p.lines(4)
	p.stop(unix.SIGTERM)
}

// TestPinIsTaken: one process has a path, and others are told so.
func TestPinIsTaken(t *testing.T) {
	t.Parallel()
	p := startPinned(t, "")
	other := prepare(t, user{}, "")
	other.write(fmt.Sprintf("forward: {pin: %s}\nlisteners: [{name: o, listen: '%s', backends: [%s]}]\n", p.path, front(t), quoted(p.backends)))
	out, errs, code := command(t, user{}, "run", "-c", other.conf)
	if want := fmt.Sprintf("%s:3:16: forward.pin: %s: a running sluice has it", other.conf, p.path); code != 1 || !strings.Contains(errs, want) {
		t.Errorf("run says %q, %q, exit %d, want %q", out, errs, code, want)
	}
	if out, errs, code := command(t, user{}, "detach", p.path); code != 1 || !strings.Contains(errs, "a running sluice has it: stop it first") {
		t.Errorf("detach says %q, %q, exit %d", out, errs, code)
	}
	for file, want := range map[string]string{other.conf: ": no, ", p.conf: ": yes, "} {
		out, errs, _ := command(t, user{}, "doctor", "-c", file)
		if i := strings.Index(out, "forward.pin "+p.path); i < 0 || !strings.Contains(strings.SplitN(out[i:], "\n", 2)[0], want) {
			t.Errorf("doctor of %s says %q, %q, want %q of forward.pin", file, out, errs, want)
		}
	}
	p.stop(unix.SIGTERM)
	if out, errs, code := command(t, user{}, "detach", p.path); code != 1 || !strings.Contains(errs, "nothing is pinned at "+p.path) {
		t.Errorf("detach says %q, %q, exit %d", out, errs, code)
	}
	other.write(fmt.Sprintf("forward: {pin: %s/pin}\nlisteners: [{name: o, listen: '%s', backends: [%s]}]\n", t.TempDir(), front(t), quoted(p.backends)))
	if out, errs, code := command(t, user{}, "run", "-c", other.conf); code != 1 || !strings.Contains(errs, "is on no BPF filesystem") {
		t.Errorf("run says %q, %q, exit %d", out, errs, code)
	}
}

// TestPinWithoutRights: who may not write there forwards nothing, and serves.
func TestPinWithoutRights(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root to be somebody else")
	}
	addr := front(t)
	i := startAs(t, nobody(), fmt.Sprintf("forward: {pin: %s}\nlisteners: [{name: l, listen: '%s', backends: [127.0.0.1:1]}]\n", nstest.PinPath(t), addr))
	if l := i.doc().Listeners[0]; l.Datapath != "relay" {
		t.Errorf("%+v", l)
	}
}

// TestDetach: what is pinned is ended, logged and removed.
func TestDetach(t *testing.T) {
	t.Parallel()
	for _, log := range []bool{true, false} {
		t.Run(fmt.Sprintf("log %t", log), func(t *testing.T) {
			p := startPinned(t, "")
			c, n := p.forwarded()
			p.acknowledged(n)
			held := p.kernelObjects()
			p.stop(unix.SIGKILL)
			p.exchange(c)
			args := []string{"detach", p.path}
			if log {
				args = []string{"detach", p.path, "-c", p.conf}
			}
			out, errs, code := command(t, user{}, args...)
			if want := p.path + ": 1 sessions reset, what was pinned is removed\n"; code != 0 || out != want {
				t.Errorf("detach says %q, %q, exit %d, want %q", out, errs, code, want)
			}
			allGone(t, held)
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client sees %v, want a reset", err)
			}
			if log {
				p.check(p.lines(1), "200 shutdown offload", n+1)
			} else if got := readLines(t, p.access); len(got) != 0 {
				t.Errorf("lines without a file that asks for them: %q", got)
			}
		})
	}
}
