// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"

	"sluice/internal/netrig"
)

// scraped asks for the metrics all the time until the test ends.
func (h *onHosts) scraped() {
	var wg sync.WaitGroup
	ended := make(chan struct{})
	h.t.Cleanup(func() {
		close(ended)
		wg.Wait()
	})
	wg.Go(func() {
		for {
			select {
			case <-ended:
				return
			default:
				if _, body, err := h.fetch("/metrics"); err != nil || !strings.Contains(body, "sluice_sessions_active") {
					h.t.Errorf("metrics: %v, %s", err, body)
					return
				}
			}
		}
	})
}

// TestOffloadIsEdited: an edit takes sessions back to the lower datapath, and once
// nobody may be forwarded any more nothing of it is left in the kernel, whoever looks
// at the statistics meanwhile.
func TestOffloadIsEdited(t *testing.T) {
	t.Parallel()
	h := startOnHosts(t, false, netrig.Options{}, "", "")
	h.scraped()
	kept, _ := h.forwarded()
	with := len(h.kernelObjects()["link_id"])
	h.write(h.file(", datapath: splice", ""))
	eventually(t, func() string {
		if l := h.doc().Listeners[0]; l.Datapath != "splice" || l.Reason != "the file says splice" {
			return fmt.Sprintf("the listener: %+v", l)
		}
		return ""
	})
	h.exchange(kept) // on_datapath is keep
	lower := h.dial()
	for range 20 {
		h.exchange(lower)
	}
	h.write(h.file(", datapath: splice, on_datapath: close", ""))
	if _, err := kept.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a forwarded session of a listener that mustn't: %v, want a reset", err)
	}
	h.exchange(lower)
	eventually(t, func() string {
		if n := len(h.kernelObjects()["link_id"]); n >= with {
			return fmt.Sprintf("%d links are left, %d with offload", n, with)
		}
		if _, body := h.get("/metrics"); strings.Contains(body, "\nsluice_forward_") {
			return "figures of a program are shown that isn't loaded"
		}
		return ""
	})
	h.write(h.file("", ""))
	eventually(t, func() string {
		if l := h.doc().Listeners[0]; l.Datapath != "offload" {
			return fmt.Sprintf("the listener: %+v", l)
		}
		return ""
	})
	h.forwarded()
}

// TestForwardTakesARestart: an edit of forward is accepted, told, and changes nothing.
func TestForwardTakesARestart(t *testing.T) {
	t.Parallel()
	h := startOnHosts(t, false, netrig.Options{}, "", "")
	before := h.metric("sluice_forward_flows_max")
	h.write(h.file("", "forward: {max_flows: 17}\n"))
	eventually(t, func() string {
		for _, e := range h.stderr.entries(t) {
			if e["level"] == "warn" && strings.Contains(fmt.Sprint(e), "forward takes effect at the next start") {
				return ""
			}
		}
		return "no warning that names forward"
	})
	if n := h.metric("sluice_forward_flows_max"); n != before || n == 17 {
		t.Errorf("there is room for %v flows, there was for %v", n, before)
	}
	h.forwarded()
}
