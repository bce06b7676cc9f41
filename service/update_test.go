// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/config"
)

// two is a file of one pool of these backends behind one address.
func two(front string, backends ...string) string {
	return "pools:\n" + poolYAML("p", "", backends...) + "listeners:\n" + listenerYAML("l", front, "p")
}

// TestOrderSurvives: an edit keeps the place of unchanged backends, and nobody
// is cut.
func TestOrderSurvives(t *testing.T) {
	a, b, c, front := backend(t, "a"), backend(t, "b"), backend(t, "c"), freeAddr(t)
	r := newRig(t, two(front, a, b))
	if got := picks(t, front, 3); got != "a b a" {
		t.Fatalf("got %s", got)
	}
	s := open(t, front) // b
	r.mustReload(two(front, a, b))
	if got := picks(t, front, 1); got != "a" || s.name != "b" {
		t.Errorf("an unchanged file disturbed the order: %s after %s", got, s.name)
	}
	r.mustReload(two(front, a, b, c))
	if got := picks(t, front, 6); strings.Count(got, "a") != 2 || strings.Count(got, "b") != 2 || strings.Count(got, "c") != 2 {
		t.Errorf("after adding c: %s", got)
	}
	if !s.alive() {
		t.Error("a session was cut by an edit")
	}
}

// TestRemoved: drain lets sessions end by themselves, and a backend that is
// put back is the same one; close resets them.
func TestRemoved(t *testing.T) {
	a, b, front := backend(t, "a"), backend(t, "b"), freeAddr(t)
	r := newRig(t, two(front, a, b))
	sa, sb := open(t, front), open(t, front)
	r.mustReload(two(front, a))
	if !sa.alive() || !sb.alive() {
		t.Fatal("draining cut a session")
	}
	if got := picks(t, front, 2); got != "a a" {
		t.Errorf("a removed backend was picked: %s", got)
	}
	want := fmt.Sprintf("%s:up:1 %s:removed:1", a, b)
	eventually(t, want, func() bool { return states(r) == want })
	r.mustReload(two(front, a, b))
	if got := states(r); got != fmt.Sprintf("%s:up:1 %s:up:1", a, b) {
		t.Errorf("put back, it isn't the same backend: %s", got)
	}
	closing := "pools:\n" + poolYAML("p", "on_remove: close, ", a) + "listeners:\n" + listenerYAML("l", front, "p")
	r.mustReload(closing)
	if !sb.reset() {
		t.Error("on_remove: close didn't reset the session")
	}
	if !sa.alive() {
		t.Error("the edit cut a session of a backend that stays")
	}
	eventually(t, "a line that says removed", func() bool { return strings.Contains(strings.Join(r.lines(), "\n"), `"removed"`) })
	eventually(t, "the removed backend vanishes", func() bool { return states(r) == a+":up:1" })
}

func states(r *rig) string {
	var out []string
	for _, p := range r.s.Snapshot().Pools {
		for _, b := range p.Backends {
			out = append(out, fmt.Sprintf("%s:%s:%d", b.Address, b.State, b.Active))
		}
	}
	return strings.Join(out, " ")
}

// TestPoolRemoved: a whole pool goes, with a session, and comes back.
func TestPoolRemoved(t *testing.T) {
	a, b, front := backend(t, "a"), backend(t, "b"), freeAddr(t)
	both := "pools:\n" + poolYAML("p", "", a) + poolYAML("q", "", b) + "listeners:\n"
	r := newRig(t, both+listenerYAML("l", front, "p"))
	s := open(t, front)
	r.mustReload("pools:\n" + poolYAML("q", "", b) + "listeners:\n" + listenerYAML("l", front, "q"))
	if got := picks(t, front, 1); got != "b" {
		t.Errorf("the listener's new pool wasn't used: %s", got)
	}
	if got := states(r); !strings.Contains(got, a+":removed:1") || !s.alive() {
		t.Errorf("states are %s", got)
	}
	r.mustReload(both + listenerYAML("l", front, "p"))
	if got := states(r); !strings.Contains(got, a+":up:1") {
		t.Errorf("brought back, it isn't the same: %s", got)
	}
	s.Close()
}

// TestAddresses: sockets belong to addresses. One that is in both files is
// never closed, whatever its listener's name; one that goes refuses; a new one
// is there.
func TestAddresses(t *testing.T) {
	a, b, one, other := backend(t, "a"), backend(t, "b"), freeAddr(t), freeAddr(t)
	pools := "pools:\n" + poolYAML("p", "", a) + poolYAML("q", "", b) + "listeners:\n"
	r := newRig(t, pools+listenerYAML("x", one, "p")+listenerYAML("y", other, "q"))
	before := r.fronts()
	r.mustReload(pools + listenerYAML("y", one, "q") + listenerYAML("x", other, "p")) // swapped
	for addr, f := range r.fronts() {
		if before[addr] != f {
			t.Errorf("%s was bound anew", addr)
		}
	}
	if got := picks(t, one, 1) + picks(t, other, 1); got != "ba" {
		t.Errorf("after the swap: %s", got)
	}
	r.mustReload(pools + listenerYAML("y", one, "q"))
	eventually(t, "the removed address refuses", func() bool {
		c, err := net.Dial("tcp", other)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	r.mustReload(pools + listenerYAML("y", one, "q") + listenerYAML("z", other, "p"))
	if got := picks(t, other, 1); got != "a" {
		t.Errorf("bound again, got %s", got)
	}
}

func (r *rig) fronts() map[config.Address]*front {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	out := map[config.Address]*front{}
	for a, f := range r.s.fronts {
		out[a] = f
	}
	return out
}

// TestOverlap: a wildcard takes over from one of its addresses and back, with
// a client at every moment.
func TestOverlap(t *testing.T) {
	a, front := backend(t, "a"), freeAddr(t)
	_, port, _ := net.SplitHostPort(front)
	r := newRig(t, two(front, a))
	for _, listen := range []string{":" + port, "0.0.0.0:" + port, front, ":" + port} {
		r.mustReload(two(listen, a))
		if got := picks(t, front, 4); got != "a a a a" {
			t.Errorf("on %s: %s", listen, got)
		}
	}
}

// TestAllOrNothing: an edit of which one part can't be done leaves everything
// as it was, and nothing of it open.
func TestAllOrNothing(t *testing.T) {
	a, b, front, more := backend(t, "a"), backend(t, "b"), freeAddr(t), freeAddr(t)
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	r := newRig(t, two(front, a))
	s := open(t, front)
	for name, bad := range map[string]struct{ content, want string }{
		"syntax":  {"listeners: [", ":1:"},
		"address": {two(front, b) + listenerYAML("m", more, "p") + listenerYAML("n", taken.Addr().String(), "p"), taken.Addr().String()},
		"pool":    {"pools: {}\nlisteners:\n" + listenerYAML("l", front, "nope"), "nope"},
	} {
		t.Run(name, func(t *testing.T) {
			err := r.reload(bad.content)
			if err == nil || name != "syntax" && !strings.Contains(err.Error(), bad.want) {
				t.Fatalf("got %v, want it to name %q", err, bad.want)
			}
			if got := picks(t, front, 2); got != "a a" {
				t.Errorf("the old state didn't stay: %s", got)
			}
			if c, err := net.Dial("tcp", more); err == nil {
				c.Close()
				t.Error("what the refused edit had bound is still open")
			}
			snap := r.s.Snapshot()
			if snap.Config.OK || snap.Config.Error == "" {
				t.Errorf("the statistics don't tell: %+v", snap.Config)
			}
		})
	}
	if !s.alive() {
		t.Error("a refused edit cut a session")
	}
	eventually(t, "a line about the refusal", func() bool { return strings.Contains(r.log.String(), "reload refused") })
	r.mustReload(two(front, b))
	if got := picks(t, front, 1); got != "b" {
		t.Errorf("after refusals a good edit gave %s", got)
	}
	if snap := r.s.Snapshot(); !snap.Config.OK || snap.ReloadsRefused < 3 || snap.ReloadsOK < 1 {
		t.Errorf("got %+v, %d ok, %d refused", snap.Config, snap.ReloadsOK, snap.ReloadsRefused)
	}
}

// TestAccessLogMoves: an edit that names a log that can't be opened is
// refused; one that can is in force for the next session.
func TestAccessLogMoves(t *testing.T) {
	a, front := backend(t, "a"), freeAddr(t)
	r := newRig(t, two(front, a))
	write := func(head string) {
		t.Helper()
		if err := os.WriteFile(r.file+".new", []byte(head+"stats: off\n"+two(front, a)), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(r.file+".new", r.file); err != nil {
			t.Fatal(err)
		}
	}
	write("access_log: {path: " + r.dir + "/none/x.log, format: json}\n")
	if err := r.reloaded(); err == nil || !strings.Contains(err.Error(), "access_log") {
		t.Fatalf("got %v", err)
	}
	picks(t, front, 1)
	eventually(t, "a line in the old log", func() bool { return len(r.lines()) == 1 && r.lines()[0] != "" })
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	write("access_log: {path: " + r.dir + "/never.log, format: json}\nstats: " + taken.Addr().String() + "\n#")
	if err := r.reloaded(); err == nil || !strings.Contains(err.Error(), taken.Addr().String()) {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Stat(r.dir + "/never.log"); err == nil {
		t.Error("an edit that was refused has left its log behind")
	}
	write("access_log: {path: " + r.dir + "/new.log, format: $pool}\n")
	if err := r.reloaded(); err != nil {
		t.Fatal(err)
	}
	picks(t, front, 1)
	eventually(t, "a line in the new log", func() bool {
		b, _ := os.ReadFile(filepath.Join(r.dir, "new.log"))
		return string(b) == "p\n"
	})
	if err := os.Rename(r.dir+"/new.log", r.dir+"/rotated.log"); err != nil {
		t.Fatal(err)
	}
	r.signals.Send(syscall.SIGUSR1)
	eventually(t, "the log is opened anew", func() bool { _, err := os.Stat(r.dir + "/new.log"); return err == nil })
	picks(t, front, 1)
	eventually(t, "a line in the new file", func() bool {
		b, _ := os.ReadFile(filepath.Join(r.dir, "new.log"))
		return string(b) == "p\n"
	})
}

// TestSignalReload: SIGHUP reloads an unchanged file, with success, and a
// missing one with a refusal; one in the middle of a write is served by its close.
func TestSignalReload(t *testing.T) {
	a, b, front := backend(t, "a"), backend(t, "b"), freeAddr(t)
	r := newRig(t, two(front, a))
	r.signals.Send(syscall.SIGHUP)
	if err := r.reloaded(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(r.file, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	content := r.head() + two(front, b)
	whole := strings.LastIndex(content, "listeners:")
	f.WriteString(content[:whole])
	time.Sleep(50 * time.Millisecond)
	r.signals.Send(syscall.SIGHUP)
	select {
	case err := <-r.reloads:
		t.Fatalf("a file that is being written was read: %v", err)
	case <-time.After(150 * time.Millisecond):
	}
	f.WriteString(content[whole:])
	f.Close()
	if err := r.reloaded(); err != nil {
		t.Fatal(err)
	}
	if got := picks(t, front, 1); got != "b" {
		t.Errorf("got %s", got)
	}
	time.Sleep(2 * reloadGap) // later events of the same edit
	for len(r.reloads) > 0 {
		<-r.reloads
	}
	os.Remove(r.file)
	select {
	case err := <-r.reloads:
		t.Errorf("a missing file was taken for an edit: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	r.signals.Send(syscall.SIGHUP)
	if err := r.reloaded(); err == nil {
		t.Error("SIGHUP without a file: no refusal")
	}
	if got := picks(t, front, 1); got != "b" {
		t.Errorf("got %s", got)
	}
}

// TestStorm: under a steady stream of edits with traffic, no session fails and
// the last state wins.
func TestStorm(t *testing.T) {
	a, b, front := backend(t, "a"), backend(t, "b"), freeAddr(t)
	r := newRig(t, two(front, a, b))
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			s, err := tryOpen(front)
			if err != nil {
				done <- err
				return
			}
			s.Close()
		}
	}()
	for i := range 200 {
		if i%2 == 0 {
			r.edit(two(front, a))
		} else {
			r.edit(two(front, b, a))
		}
		time.Sleep(2 * time.Millisecond)
	}
	r.edit(two(front, b))
	close(stop)
	if err := <-done; err != nil {
		t.Errorf("a session failed during the edits: %v", err)
	}
	end := time.Now().Add(time.Second)
	for ; ; time.Sleep(5 * time.Millisecond) {
		if got := picks(t, front, 2); got == "b b" {
			break
		} else if time.Now().After(end) {
			t.Fatalf("a second after the last edit: %s", got)
		}
	}
}
