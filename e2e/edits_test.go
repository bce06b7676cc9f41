// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// edits is how many the long test makes: 10000, or SLUICE_EDITS.
func edits(t *testing.T) int {
	if n, err := strconv.Atoi(os.Getenv("SLUICE_EDITS")); err == nil {
		return n
	}
	if testing.Short() {
		return 500
	}
	return 10000
}

// TestEdits: 10 000 edits in a row while 200 connections carry traffic and new
// ones keep coming. None is cut, none refused, nothing is left over.
func TestEdits(t *testing.T) {
	t.Parallel()
	const held = 200
	pool := []string{tcp(t, echo).addr, tcp(t, echo).addr, tcp(t, echo).addr, tcp(t, echo).addr}
	addr, extra := front(t), front(t)
	body := func(k int) string {
		var w strings.Builder
		fmt.Fprintf(&w, "pools:\n  p:\n    backends:\n      - {address: %q, weight: %d}\n", pool[0], 1+k%3)
		for j := 1; j < len(pool); j++ {
			if k>>(j-1)&1 == 0 {
				fmt.Fprintf(&w, "      - %q\n", pool[j])
			}
		}
		fmt.Fprintf(&w, "listeners:\n  - {name: l, listen: %q, pool: p, idle_timeout: %dm}\n", addr, 1+k%5)
		if k%16 == 7 {
			fmt.Fprintf(&w, "  - {name: m, listen: %q, pool: p}\n", extra)
		}
		return w.String()
	}
	i := start(t, body(0))
	ping(t, addr).Close()
	i.lines(1)
	fds := i.fds()
	var entries map[string]int
	if os.Geteuid() == 0 {
		entries = i.mapEntries()
	}

	stop := make(chan struct{})
	var wg sync.WaitGroup
	var messages, fresh atomic.Int64
	stopped := func() bool {
		select {
		case <-stop:
			return true
		default:
			return false
		}
	}
	for range held {
		p := ping(t, addr)
		wg.Go(func() {
			for !stopped() {
				if err := p.again(); err != nil {
					t.Errorf("a session was cut after %d messages: %v", p.n, err)
					break
				}
				messages.Add(1)
				time.Sleep(20 * time.Millisecond)
			}
			p.Close()
		})
	}
	for range 4 {
		wg.Go(func() {
			for !stopped() {
				c, err := net.DialTimeout("tcp", addr, patience)
				if err != nil {
					t.Errorf("a new connection was refused: %v", err)
					return
				}
				if err := (&pinger{Conn: c}).again(); err != nil {
					t.Errorf("a new connection was cut: %v", err)
				}
				c.Close()
				fresh.Add(1)
				time.Sleep(5 * time.Millisecond)
			}
		})
	}

	n := edits(t)
	began := time.Now()
	for k := range n {
		i.write(body(k))
		time.Sleep(3 * time.Millisecond) // an editor of inhuman speed, not a stress of the disk
		if t.Failed() {
			break
		}
	}
	took := time.Since(began)
	i.write(body(1)) // pool[1] out, the others in
	i.loaded("p", pool[0], pool[2], pool[3])
	close(stop)
	wg.Wait()

	reloads := i.metric(`sluice_config_reloads_total{result="ok"}`)
	t.Logf("%d edits in %s, %.0f of them taken one by one; %d messages, %d new connections", n, took.Round(time.Millisecond), reloads, messages.Load(), fresh.Load())
	if reloads < 10 {
		t.Errorf("only %.0f reloads", reloads)
	}
	if refused := i.metric(`sluice_config_reloads_total{result="refused"}`); refused != 0 {
		t.Errorf("%.0f edits were refused", refused)
	}
	lines := i.lines(int(1 + held + fresh.Load()))
	for _, line := range lines {
		if !strings.Contains(line, " TCP 200 ") {
			t.Errorf("a session that didn't go well: %q", line)
			break
		}
	}
	eventually(t, func() string {
		if n := i.fds(); n > fds+6 {
			return fmt.Sprintf("%d descriptors, %d before", n, fds)
		}
		if entries == nil {
			return ""
		}
		now := i.mapEntries()
		if len(now) > len(entries) {
			return fmt.Sprintf("%d maps, %d before", len(now), len(entries))
		}
		for name, n := range now {
			if n > entries[name] {
				return fmt.Sprintf("%d entries in %s, %d before", n, name, entries[name])
			}
		}
		return ""
	})
}

// metric is the value of one series of /metrics; 0 if it isn't there.
func (i *instance) metric(series string) float64 {
	i.t.Helper()
	_, body := i.get("/metrics")
	for line := range strings.Lines(body) {
		if v, ok := strings.CutPrefix(line, series+" "); ok {
			f, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
			if err != nil {
				i.t.Fatal(err)
			}
			return f
		}
	}
	return 0
}
