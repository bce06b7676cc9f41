// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/config"
	"sluice/loader"
	"sluice/stats"
)

// TestScrapesHoldUpNoEdit: while the figures of many backends are read without
// a pause, the lock that an edit takes, with all loops behind it, is free.
func TestScrapesHoldUpNoEdit(t *testing.T) {
	var backends []string
	for i := range 4000 {
		backends = append(backends, fmt.Sprintf("198.18.%d.%d:7", i/250, 1+i%250))
	}
	r := newRig(t, two(freeAddr(t), backends...))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				select {
				case <-stop:
					return
				default:
				}
				if n := len(r.s.Snapshot().Pools[0].Backends); n != len(backends) {
					t.Errorf("%d backends", n)
				}
			}
		}()
	}
	taken := 0
	const looks = 200
	for range looks {
		time.Sleep(time.Millisecond)
		if !r.s.mu.TryLock() {
			taken++
			continue
		}
		r.s.mu.Unlock()
	}
	close(stop)
	wg.Wait()
	if taken > looks/10 {
		t.Errorf("a scrape held the edits' lock at %d of %d looks", taken, looks)
	}
}

// TestViewIsCurrent: what the statistics show follows each edit, and a removed
// pool for as long as it has a session.
func TestViewIsCurrent(t *testing.T) {
	a, b, front := backend(t, "a"), backend(t, "b"), freeAddr(t)
	r := newRig(t, two(front, a))
	s := open(t, front)
	r.mustReload("pools:\n" + poolYAML("q", "", b) + "listeners:\n" + listenerYAML("m", front, "q"))
	snap := r.s.Snapshot()
	if len(snap.Left) != 1 || snap.Left[0].Name != "l" || snap.Left[0].Active != 1 {
		t.Errorf("the removed listener with its session: %+v", snap.Left)
	}
	if len(snap.Listeners) != 1 || snap.Listeners[0].Name != "m" || snap.Listeners[0].Pool != "q" || snap.Listeners[0].Fallbacks == nil {
		t.Errorf("listeners %+v", snap.Listeners)
	}
	if len(snap.Pools) != 2 || snap.Pools[0].Name != "q" || snap.Pools[1].Name != "p" || snap.Pools[1].Backends[0].State != "removed" {
		t.Errorf("pools %+v", snap.Pools)
	}
	if f := r.s.Flows(10, stats.OldestFirst); len(f) != 1 || f[0].Pool != "p" || f[0].Backend != a || f[0].Reason != "running without privileges" {
		t.Errorf("flows %+v", f)
	}
	s.Close()
	eventually(t, "the removed pool and listener have gone", func() bool {
		snap := r.s.Snapshot()
		return len(snap.Pools) == 1 && len(snap.Left) == 0
	})
}

// TestLadder: the best datapath, and a reason only where something forbids it.
func TestLadder(t *testing.T) {
	at := func(s string) config.Address {
		a := netip.MustParseAddrPort(s)
		return config.Address{Addr: a.Addr(), Port: a.Port()}
	}
	front, unix := config.Address{Port: 1, Any: true}, config.Address{Path: "/run/x"}
	pool := func(list ...config.Address) *config.Pool {
		p := &config.Pool{}
		for _, a := range list {
			p.Backends = append(p.Backends, config.Backend{Address: a})
		}
		return p
	}
	far, here := pool(at("198.18.0.2:1"), unix), pool(at("127.0.0.1:1"), at("[::1]:1"))
	on := func(list ...config.Address) config.Listener { return config.Listener{Listen: list} }
	with := func(l config.Listener, change func(*config.Listener)) config.Listener {
		change(&l)
		return l
	}
	all, noOffload := &Service{splice: new(loader.Splice), offload: new(offload)}, &Service{splice: new(loader.Splice), noOffload: "lacks CAP_NET_RAW"}
	for _, c := range []struct {
		name   string
		s      *Service
		l      config.Listener
		p      *config.Pool
		want   config.Datapath
		reason string
	}{
		{"all there is", all, on(front), far, config.Offload, ""},
		{"a name", all, on(front), pool(config.Address{Name: "a.test", Port: 1}), config.Offload, ""},
		{"one of both kinds", all, on(at("127.0.0.1:1"), at("198.18.0.1:1"), unix), far, config.Offload, ""},
		{"offload", all, with(on(front), func(l *config.Listener) { l.Datapath = config.Offload }), far, config.Offload, ""},
		{"splice", all, with(on(front), func(l *config.Listener) { l.Datapath = config.Splice }), far, config.Splice, "file says splice"},
		{"no raw sockets", noOffload, on(front), far, config.Splice, "CAP_NET_RAW"},
		{"backends on this host", all, on(front), here, config.Splice, "backends are on this host"},
		{"clients on this host", all, on(at("127.0.0.1:1"), unix), far, config.Splice, "only clients on this host"},
		{"another IP version", all, on(at("198.18.0.1:1")), pool(at("[fd00::2]:1")), config.Splice, "IP version"},
		{"relay", all, with(on(front), func(l *config.Listener) { l.Datapath = config.Relay }), far, config.Relay, "file says relay"},
		{"a rate", all, with(on(front), func(l *config.Listener) { l.DownloadRate = 1 }), far, config.Relay, "limits the rate"},
		{"unix fronts", all, on(unix), far, config.Relay, "listens on unix"},
		{"unix backends", all, on(front), pool(unix), config.Relay, "backends are unix"},
		{"no privilege", &Service{noSplice: "lacks CAP_BPF", noOffload: "likewise"}, on(front), far, config.Relay, "CAP_BPF"},
	} {
		got, reason := c.s.bestFor(&c.l, c.p)
		if got != c.want || (reason == "") != (c.reason == "") || !strings.Contains(reason, c.reason) {
			t.Errorf("%s: %s, %q, want %s, %q", c.name, got, reason, c.want, c.reason)
		}
	}
}
