// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestRemovedLater: what on_remove says in the end counts for backends that
// were removed before it did, and after a while what is left is reset.
func TestRemovedLater(t *testing.T) {
	file := func(front, option string, backends ...string) string {
		return "pools:\n" + poolYAML("p", "on_remove: "+option+", ", backends...) + "listeners:\n" + listenerYAML("l", front, "p")
	}
	other := func(front, b string) string {
		return "pools:\n" + poolYAML("q", "", b) + "listeners:\n" + listenerYAML("l", front, "q")
	}
	a, b := backend(t, "a"), backend(t, "b")
	for _, tt := range []struct {
		name  string
		files func(front string) []string
		slow  bool // it is the time that does it
	}{
		{"close written later", func(f string) []string { return []string{file(f, "drain", a), file(f, "close", a)} }, false},
		{"a duration", func(f string) []string { return []string{file(f, "700ms", a)} }, true},
		{"a duration written later", func(f string) []string { return []string{file(f, "drain", a), file(f, "700ms", a)} }, true},
		{"a shorter one", func(f string) []string { return []string{file(f, "1h", a), file(f, "700ms", a)} }, true},
		{"a pool that goes", func(f string) []string { return []string{file(f, "700ms", a, b), other(f, a)} }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			front := freeAddr(t)
			r := newRig(t, file(front, "drain", a, b))
			stays, goes := open(t, front), open(t, front)
			if goes.name != "b" {
				t.Fatal(goes.name)
			}
			began := time.Now()
			for _, f := range tt.files(front) {
				r.mustReload(f)
			}
			if tt.slow && !goes.alive() && time.Since(began) < 700*time.Millisecond {
				t.Error("cut at once")
			}
			if !goes.reset() {
				t.Error("not reset")
			}
			if d := time.Since(began); tt.slow && d < 700*time.Millisecond {
				t.Errorf("cut after %s", d)
			}
			if tt.name != "a pool that goes" && !stays.alive() {
				t.Error("the session of a backend that stays was cut")
			}
			eventually(t, "a line that says removed", func() bool { return strings.Contains(strings.Join(r.lines(), "\n"), `"removed"`) })
		})
	}
	t.Run("put back", func(t *testing.T) {
		front := freeAddr(t)
		r := newRig(t, file(front, "300ms", a, b))
		open(t, front)
		goes := open(t, front)
		r.mustReload(file(front, "300ms", a))
		r.mustReload(file(front, "300ms", a, b))
		time.Sleep(500 * time.Millisecond)
		if !goes.alive() {
			t.Error("a session was cut though its backend is in the file again")
		}
	})
}

// TestRulesOfNow: on_datapath: close holds new rules against live sessions,
// keep doesn't, and an edit that says close later does.
func TestRulesOfNow(t *testing.T) {
	a, front := backend(t, "a"), freeAddr(t)
	file := func(options string) string {
		return "pools:\n" + poolYAML("p", "", a) + fmt.Sprintf("listeners:\n  - {name: l, listen: %q, pool: p%s}\n", front, options)
	}
	r := newRig(t, file(""))
	s := open(t, front)
	r.mustReload(file(", deny: [127.0.0.0/8]"))
	if !s.alive() {
		t.Fatal("a new rule cut a session")
	}
	r.mustReload(file(", on_datapath: close"))
	if !s.alive() {
		t.Fatal("a session that no rule is against was cut")
	}
	r.mustReload(file(", deny: [127.0.0.0/8], on_datapath: close"))
	if !s.reset() {
		t.Error("the session wasn't reset")
	}
	eventually(t, "a line that says removed", func() bool { return strings.Contains(strings.Join(r.lines(), "\n"), `"removed"`) })
}
