// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/internal/netrig"
)

// pinned is a sluice whose forwarded sessions outlive it.
type pinned struct {
	*onHosts
	path, options string
}

// pinFormat is offloadFormat and what a later process can know of a session only from
// the one before.
const pinFormat = offloadFormat + ` $remote_addr $upstream_addr $session_time $upstream_connect_time $connection $upstream_rtt`

func startPinned(t *testing.T, v6 bool, options string) *pinned {
	t.Helper()
	path := filepath.Join("/sys/fs/bpf", fmt.Sprintf("sl-e2e-%d-%d", os.Getpid(), portCounter.Add(1)))
	t.Cleanup(func() {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is left: %v", path, names(t, path))
			os.RemoveAll(path)
		}
	})
	h := startOnHostsWith(t, v6, netrig.Options{}, options, "forward: {pin: "+path+"}\n", func(i *instance) { i.format = pinFormat })
	return &pinned{h, path, options}
}

func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// body is the file, with other options of the listener.
func (p *pinned) body(options string) string {
	return p.file(options, "forward: {pin: "+p.path+"}\n")
}

// again starts the next process on the same files.
func (p *pinned) again(body string) {
	p.t.Helper()
	next := &instance{
		t: p.t, dir: p.dir, conf: p.conf, access: p.access, stats: p.stats, format: p.format,
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
			p := startPinned(t, false, "")
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
			other, _ := p.forwarded()
			other.Close()
			_ = p.lines(1)
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
