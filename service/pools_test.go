// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"sluice/config"
	"sluice/loader"
)

// A start with more pools than dispatch has boards for says so in a line or
// two, not in one for each pool.
func TestPoolsBeyondTheBoards(t *testing.T) {
	d, err := loader.NewDispatch(zerolog.Nop())
	if err != nil {
		t.Skip(err)
	}
	defer d.Close()
	out := &syncBuffer{}
	s := New(Options{LogWriter: zerolog.MultiLevelWriter(out)})
	s.dispatch = d
	defer func() { s.dispatch = nil }()
	c := &config.Config{}
	const boards, beyond = 1024, 100
	for i := range boards + beyond {
		c.Pools = append(c.Pools, &config.Pool{Name: fmt.Sprintf("p%d", i)})
	}
	without := 0
	for _, ch := range s.preparePools(c) {
		if ch.entry.board == nil {
			without++
		}
		defer s.freePool(ch.entry)
	}
	if without != beyond {
		t.Errorf("%d pools without a board, want %d", without, beyond)
	}
	s.events.flush()
	s.queue.flush(10 * time.Second)
	if n := strings.Count(out.String(), "\n"); n < 1 || n > 3 {
		t.Errorf("%d lines for %d pools:\n%s", n, beyond, out.String())
	}
}

// TestSlowStart: a backend that an edit adds beside others has few sessions at
// first; those of the start, and a pool's only one, have theirs at once.
func TestSlowStart(t *testing.T) {
	a, b, front := backend(t, "a"), backend(t, "b"), freeAddr(t)
	file := func(backends ...string) string {
		var list []string
		for _, b := range backends {
			list = append(list, fmt.Sprintf(`{address: "%s", slow_start: 1h}`, b))
		}
		return "pools:\n  p: {backends: [" + strings.Join(list, ", ") + "]}\nlisteners:\n" + listenerYAML("l", front, "p")
	}
	r := newRig(t, file(a, b))
	if got := picks(t, front, 4); got != "a b a b" {
		t.Errorf("at the start: %s", got)
	}
	r.mustReload(file(a))
	r.mustReload(file(a, b))
	if n := strings.Count(picks(t, front, 100), "b"); n < 2 || n > 8 {
		t.Errorf("%d of the first 100 sessions on the one that has come back, want 5 or so", n)
	}
	r.mustReload(file(b))
	if got := picks(t, front, 3); got != "b b b" {
		t.Errorf("the only one: %s", got)
	}
}
