// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// loaded waits until the file's present content is in force: its last backends
// are those of the pool.
func (i *instance) loaded(pool string, backends ...string) {
	i.t.Helper()
	want := strings.Join(backends, " ")
	eventually(i.t, func() string {
		got := strings.Join(i.backends(pool), " ")
		if got != want {
			return fmt.Sprintf("backends of %s: %s, want %s\n", pool, got, want)
		}
		return ""
	})
}

// statsDoc is as much of /stats as is looked at here.
type statsDoc struct {
	Config struct {
		OK    bool   `json:"ok"`
		Error string `json:"error"`
	} `json:"config"`
	AccessLog struct {
		Lines, Dropped uint64
	} `json:"access_log"`
	Listeners []struct {
		Name, Pool, Protocol, Datapath, Reason string
		Fallbacks                              map[string]uint64
		Listen                                 []string
		Active, Total                          int64
		BytesReceived                          uint64 `json:"bytes_received"`
		BytesSent                              uint64 `json:"bytes_sent"`
	} `json:"listeners"`
	Pools []struct {
		Name, Balance string
		Backends      []struct {
			Address, State        string
			Weight                int
			Backup                bool
			Active, Total, Failed int64
			BytesReceived         uint64  `json:"bytes_received"`
			BytesSent             uint64  `json:"bytes_sent"`
			ConnectSeconds        float64 `json:"connect_seconds"`
		} `json:"backends"`
	} `json:"pools"`
}

func (i *instance) doc() statsDoc {
	i.t.Helper()
	var d statsDoc
	code, body := i.get("/stats")
	if err := json.Unmarshal([]byte(body), &d); err != nil || code != 200 {
		i.t.Fatalf("/stats: %d, %v: %s", code, err, body)
	}
	return d
}

// backends are a pool's, in its order, without the removed ones.
func (i *instance) backends(pool string) []string {
	i.t.Helper()
	var list []string
	for _, p := range i.doc().Pools {
		if p.Name == pool {
			for _, b := range p.Backends {
				if b.State != "removed" {
					list = append(list, b.Address)
				}
			}
		}
	}
	return list
}

// TestWaysToSave: however the file is written, what is in it at last is taken
// within a second or so, and nothing before it was complete.
func TestWaysToSave(t *testing.T) {
	a, b := tcp(t, echo).addr, tcp(t, echo).addr
	addr := front(t)
	for _, w := range []struct {
		name string
		save func(t *testing.T, i *instance, text string)
	}{
		{"rename", func(t *testing.T, i *instance, text string) { i.writeRaw(text) }},
		{"in place", func(t *testing.T, i *instance, text string) {
			if err := os.WriteFile(i.conf, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}},
		{"in place with SIGHUP", func(t *testing.T, i *instance, text string) {
			if err := os.WriteFile(i.conf, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			i.signal(unix.SIGHUP)
		}},
		{"delete and create", func(t *testing.T, i *instance, text string) {
			os.Remove(i.conf)
			time.Sleep(300 * time.Millisecond)
			if err := os.WriteFile(i.conf, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}},
		{"slowly", func(t *testing.T, i *instance, text string) {
			f, err := os.OpenFile(i.conf, os.O_WRONLY|os.O_TRUNC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			// Each part is a valid file, with other backends than the whole.
			f.WriteString(text)
			time.Sleep(700 * time.Millisecond)
			i.signal(unix.SIGHUP)
			time.Sleep(700 * time.Millisecond)
			if got := i.backends("l"); len(got) != 1 || got[0] != a {
				t.Errorf("a file that is still being written was taken: %v", got)
			}
			f.WriteString("# the end\n")
		}},
	} {
		t.Run(w.name, func(t *testing.T) {
			i := start(t, one(addr, a))
			p := ping(t, addr)
			w.save(t, i, i.text(one(addr, b, a)))
			i.loaded("l", b, a)
			if err := p.again(); err != nil {
				t.Errorf("a session was cut: %v", err)
			}
		})
	}
}

// TestMountedConfigMap: the file is reached through symlinks of which one is
// swapped, as kubelet does it.
func TestMountedConfigMap(t *testing.T) {
	t.Parallel()
	a, b := tcp(t, echo).addr, tcp(t, echo).addr
	addr := front(t)
	i := prepare(t, user{}, one(addr, a))
	mount := filepath.Join(i.dir, "mount")
	revision := func(name, text string) {
		if err := os.MkdirAll(filepath.Join(mount, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(mount, name, "backends.yaml"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		os.Remove(filepath.Join(mount, "..tmp"))
		if err := os.Symlink(name, filepath.Join(mount, "..tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(mount, "..tmp"), filepath.Join(mount, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	revision("..1", i.text(one(addr, a)))
	i.conf = filepath.Join(mount, "backends.yaml")
	if err := os.Symlink("..data/backends.yaml", i.conf); err != nil {
		t.Fatal(err)
	}
	i.launch(user{})
	i.awaitReady()
	i.loaded("l", a)
	revision("..2", i.text(one(addr, b)))
	os.RemoveAll(filepath.Join(mount, "..1"))
	i.loaded("l", b)
	revision("..3", i.text(one(addr, a, b)))
	i.loaded("l", a, b)
}

// TestRefusedEdit: an edit that can't be done as a whole changes nothing, not
// even the place in the order, and says what is wrong.
func TestRefusedEdit(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	addr, other := front(t), front(t)
	b := named(t, 3)
	pool := poolOf("round_robin", []int{5, 1, 1}, b)
	good := pool + fmt.Sprintf("listeners: [{name: l, listen: %q, pool: p}]\n", addr)
	for _, u := range users() {
		t.Run(u.name, func(t *testing.T) {
			i := startAs(t, u, good)
			order := ""
			next := func(n int) {
				for range n {
					c, err := letter(addr)
					if err != nil {
						t.Fatal(err)
					}
					order += string(c)
				}
			}
			next(3)
			for _, bad := range []struct{ what, text, says string }{
				{"syntax", i.text("listeners: [\n"), ""},
				{"empty", "", ""},
				{"an undefined pool", i.text(strings.Replace(good, "pool: p", "pool: q", 1)), "q"},
				{"a port that is taken", i.text(pool + fmt.Sprintf("listeners: [{name: l, listen: %q, pool: p}, {name: m, listen: %q, pool: p}, {name: n, listen: %q, pool: p}]\n", addr, other, taken.Addr())), taken.Addr().String()},
				{"a log that can't be opened", strings.Replace(i.text(good), i.access, i.dir+"/none/access.log", 1), "/none/"},
			} {
				seen := len(i.stderr.entries(t))
				i.writeRaw(bad.text)
				eventually(t, func() string {
					list := i.stderr.entries(t)
					for _, e := range list[min(seen, len(list)):] {
						text := fmt.Sprint(e)
						if strings.Contains(text, "refused") && strings.Contains(text, bad.says) {
							return ""
						}
					}
					return fmt.Sprintf("%s: the own log doesn't say that it was refused, naming %q", bad.what, bad.says)
				})
				if d := i.doc(); d.Config.OK || d.Config.Error == "" {
					t.Errorf("%s: /stats says config %+v", bad.what, d.Config)
				}
				next(2)
			}
			if c, err := net.Dial("tcp", other); err == nil {
				c.Close()
				t.Error("a listener of a refused edit is bound")
			}
			next(1)
			if order != "aabacaaaabacaa" {
				t.Errorf("order %s over refused edits, want aabacaa twice", order)
			}
			i.write(good)
			eventually(t, func() string {
				if d := i.doc(); !d.Config.OK {
					return "the good file isn't taken: " + d.Config.Error
				}
				return ""
			})
			next(7)
			if !strings.HasSuffix(order, "aabacaa") {
				t.Errorf("order %s over an unchanged file", order)
			}
		})
	}
}

// TestRemoval: sessions of a removed backend drain, or are closed if the pool
// says so; nobody else's are touched.
func TestRemoval(t *testing.T) {
	t.Parallel()
	for _, rule := range []string{"drain", "close"} {
		t.Run(rule, func(t *testing.T) {
			a, b := tcp(t, echo), tcp(t, echo)
			addr := front(t)
			body := func(list ...string) string {
				return fmt.Sprintf("pools: {p: {on_remove: %s, backends: [%s]}}\nlisteners: [{name: l, listen: %q, pool: p}]\n", rule, quoted(list), addr)
			}
			i := startWith(t, user{}, body(a.addr, b.addr), withReasons)
			onA, onB := ping(t, addr), ping(t, addr)
			i.write(body(b.addr))
			i.loaded("p", b.addr)
			if err := onB.again(); err != nil {
				t.Errorf("a session of another backend: %v", err)
			}
			if rule == "drain" {
				if err := onA.again(); err != nil {
					t.Errorf("a draining session: %v", err)
				}
				for range 3 {
					ping(t, addr).Close()
				}
				if n := a.accepted.Load(); n != 1 {
					t.Errorf("a removed backend got %d connections", n)
				}
				onA.Close()
				i.lines(4)
				return
			}
			if got := rest(onA); got != `"" reset` {
				t.Errorf("the client of a removed backend saw %s", got)
			}
			if got := i.lines(1); got[0] != "200 removed" {
				t.Errorf("its line: %q", got[0])
			}
		})
	}
}

// TestNewcomer: a backend that is added gets its share at once.
func TestNewcomer(t *testing.T) {
	t.Parallel()
	addr := front(t)
	b := named(t, 3)
	body := func(n int) string {
		return poolOf("round_robin", []int{1, 1, 1}, b[:n]) + fmt.Sprintf("listeners: [{name: l, listen: %q, pool: p}]\n", addr)
	}
	for _, u := range users() {
		t.Run(u.name, func(t *testing.T) {
			i := startAs(t, u, body(2))
			spread(t, addr, 100, 8)
			i.lines(100)
			i.write(body(3))
			i.loaded("p", b[0].addr, b[1].addr, b[2].addr)
			if counts := spread(t, addr, 30, 1); counts['c'] < 9 || counts['c'] > 11 {
				t.Errorf("of the first 30 the newcomer got %d, want a third: %v", counts['c'], counts)
			}
		})
	}
}

// TestListeners: listeners come, go and move without a refused connection on
// an address that stays.
func TestListeners(t *testing.T) {
	t.Parallel()
	b := tcp(t, echo).addr
	one, two, three := front(t), front(t), front(t)
	body := func(pairs ...string) string {
		var w strings.Builder
		fmt.Fprintf(&w, "pools: {p: {backends: [%q]}}\nlisteners:\n", b)
		for k := 0; k < len(pairs); k += 2 {
			fmt.Fprintf(&w, "  - {name: %s, listen: %q, pool: p}\n", pairs[k], pairs[k+1])
		}
		return w.String()
	}
	i := start(t, body("a", one, "b", two))
	stays := ping(t, one)
	halt := make(chan struct{})
	done := make(chan int)
	go func() { // address one is in every file
		n := 0
		for {
			select {
			case <-halt:
				done <- n
				return
			default:
			}
			c, err := net.DialTimeout("tcp", one, patience)
			if err != nil {
				t.Errorf("refused on an address that stays: %v", err)
				done <- n
				return
			}
			p := &pinger{Conn: c}
			if err := p.again(); err != nil {
				t.Errorf("cut on an address that stays: %v", err)
			}
			c.Close()
			n++
			time.Sleep(time.Millisecond)
		}
	}()
	_, port, _ := net.SplitHostPort(one)
	for k, file := range []string{
		body("b", one, "a", two),   // swapped
		body("c", one),             // renamed, and one removed
		body("c", ":"+port),        // widened
		body("c", one, "d", three), // narrowed, and one added
	} {
		i.write(file)
		var names []string
		for _, f := range strings.Split(file, "name: ")[1:] {
			names = append(names, f[:1])
		}
		eventually(t, func() string {
			var got []string
			for _, l := range i.doc().Listeners {
				got = append(got, l.Name)
			}
			if strings.Join(got, "") != strings.Join(names, "") {
				return fmt.Sprintf("listeners %v, want %v", got, names)
			}
			return ""
		})
		if k == 1 {
			if c, err := net.Dial("tcp", two); err == nil {
				c.Close()
				t.Error("a removed listener still accepts")
			}
		}
	}
	ping(t, three).Close()
	close(halt)
	if n := <-done; n == 0 {
		t.Error("no traffic during the edits")
	}
	if err := stays.again(); err != nil {
		t.Errorf("a session was cut: %v", err)
	}
}
