// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
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
	n.want([]string{"x"})
	n.settle(resolveStart)
	<-n.changed
	if got := n.get("x"); len(got) != 2 || got[0] != netip.MustParseAddr("10.0.0.1") {
		t.Fatalf("got %v, want each address once, in a steady order", got)
	}
	broken.Store(true)
	n.mu.Lock()
	n.hosts["x"].asked = n.hosts["x"].asked.Add(-2 * resolveEvery)
	n.mu.Unlock()
	n.refresh()
	n.settle(resolveStart)
	if failures.Load() != 1 || len(n.get("x")) != 2 {
		t.Errorf("%d failures told, answer %v", failures.Load(), n.get("x"))
	}
	n.want(nil)
	if n.get("x") != nil || n.refresh() != 0 {
		t.Error("a name that isn't wanted any more is kept")
	}
}
