// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestNames: a name is its addresses; one that doesn't resolve is a backend
// that is down; an edit doesn't wait for an answer.
func TestNames(t *testing.T) {
	a, front := backend(t, "a"), freeAddr(t)
	_, port, _ := net.SplitHostPort(a)
	answered := make(chan struct{})
	known := lookup(map[string][]string{"ok.test": {"127.0.0.1"}, "same.test": {"::ffff:127.0.0.1"}})
	o := Options{Resolve: func(ctx context.Context, host string) ([]netip.Addr, error) {
		if host == "slow.test" {
			select {
			case <-answered:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			return known(ctx, "ok.test")
		}
		return known(ctx, host)
	}}
	r := newRigWith(t, two(front, "bad.test:"+port, "ok.test:"+port, "same.test:"+port), o)
	if got := states(r); got != "bad.test:"+port+":down:0 "+a+":up:0" {
		t.Errorf("at start: %s", got)
	}
	if got := picks(t, front, 2); got != "a a" {
		t.Errorf("got %s", got)
	}
	eventually(t, "a warning", func() bool { return strings.Contains(r.log.String(), "bad.test") })
	eventually(t, "the sessions have ended", func() bool { return strings.Contains(states(r), a+":up:0") })
	r.mustReload(two(front, "slow.test:"+port))
	if got := states(r); got != "slow.test:"+port+":down:0" {
		t.Errorf("before the answer: %s", got)
	}
	close(answered)
	eventually(t, "the answer is taken over", func() bool { return states(r) == a+":up:0" })
	if got := picks(t, front, 1); got != "a" {
		t.Errorf("got %s", got)
	}
}

// TestLastAnswerStays: a later failure keeps the last answer.
func TestLastAnswerStays(t *testing.T) {
	var broken atomic.Bool
	var failures atomic.Int32
	n := newNames(func(context.Context, string) ([]netip.Addr, error) {
		if broken.Load() {
			return nil, errors.New("no server")
		}
		return []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")}, nil
	}, func(_ string, known bool, _ error) {
		if known {
			failures.Add(1)
		}
	})
	defer n.Close()
	n.add([]string{"x"})
	n.settle(t.Context(), resolveStart)
	<-n.changed
	if got := n.get("x"); len(got) != 2 || got[0] != netip.MustParseAddr("10.0.0.1") {
		t.Fatalf("got %v, want each address once, in a steady order", got)
	}
	broken.Store(true)
	n.mu.Lock()
	n.hosts["x"].asked = n.hosts["x"].asked.Add(-2 * resolveEvery)
	n.mu.Unlock()
	n.refresh()
	n.settle(t.Context(), resolveStart)
	if failures.Load() != 1 || len(n.get("x")) != 2 {
		t.Errorf("%d failures told, answer %v", failures.Load(), n.get("x"))
	}
	n.keep(nil)
	if n.get("x") != nil || n.refresh() != 0 {
		t.Error("a name that isn't wanted any more is kept")
	}
}

// TestRefusedEditKeepsAnswers: an edit that is refused forgets no answer that
// is in force, so that the next reload finds the backends it had, and with
// on_remove: close cuts nobody.
func TestRefusedEditKeepsAnswers(t *testing.T) {
	a, front := backend(t, "a"), freeAddr(t)
	_, port, _ := net.SplitHostPort(a)
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	var asked atomic.Int32
	r := newRigWith(t, closing(front, "once.test:"+port), Options{Resolve: func(ctx context.Context, host string) ([]netip.Addr, error) {
		if host == "once.test" && asked.Add(1) == 1 {
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		}
		<-ctx.Done() // a name server that has gone
		return nil, ctx.Err()
	}})
	s := open(t, front)
	if err := r.reload(closing(front, "other.test:"+port) + listenerYAML("m", taken.Addr().String(), "p")); err == nil {
		t.Fatal("an edit that can't be done was accepted")
	}
	r.mustReload(closing(front, "once.test:"+port))
	if got := states(r); got != a+":up:1" {
		t.Errorf("after a refused edit and a reload of the old file: %s", got)
	}
	if !s.alive() {
		t.Error("the session was cut")
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the name was asked for %d times within a moment", n)
	}
}

// closing is a file whose pool resets the sessions of what is removed.
func closing(front string, backends ...string) string {
	return "pools:\n" + poolYAML("p", "on_remove: close, ", backends...) + "listeners:\n" + listenerYAML("l", front, "p")
}

// TestForgottenNamesAreNotAskedFor: look-ups of names that nobody wants any
// more end at once, those that wait for their turn included.
func TestForgottenNamesAreNotAskedFor(t *testing.T) {
	var asking atomic.Int32
	n := newNames(func(ctx context.Context, _ string) ([]netip.Addr, error) {
		asking.Add(1)
		defer asking.Add(-1)
		<-ctx.Done()
		return nil, ctx.Err()
	}, func(name string, _ bool, _ error) { t.Errorf("told of %s, which nobody wants", name) })
	defer n.Close()
	var list []string
	for i := range 3 * resolveAtOne {
		list = append(list, fmt.Sprintf("n%d.test", i))
	}
	n.add(list)
	eventually(t, "look-ups are under way", func() bool { return asking.Load() == resolveAtOne })
	n.keep(nil)
	ended := make(chan struct{})
	go func() { n.wg.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(resolveLimit / 2):
		t.Error("look-ups of forgotten names go on")
	}
}
