// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"sluice/internal/netrig"
)

// TestOffloadInTurn: a client that waits for the end of one session before it begins the
// next is never refused, however small the limit, when the sessions are forwarded.
func TestOffloadInTurn(t *testing.T) {
	t.Parallel()
	const sessions, messages = 300, 12
	for _, limit := range []string{"max_conns: 1", "max_conns_per_ip: 1"} {
		t.Run(limit, func(t *testing.T) {
			h := startOnHosts(t, false, netrig.Options{}, ", "+limit, "")
			for n := range sessions {
				c := h.dial()
				for range messages {
					h.exchange(c)
				}
				c.CloseWrite()
				if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
					t.Fatalf("session %d: %d bytes more, %v", n, len(rest), err)
				}
				c.Close()
			}
			forwarded := 0
			for _, line := range h.lines(sessions) {
				if want := fmt.Sprintf("200 client_closed offload %d %d ", 8*messages, 8*messages); strings.HasPrefix(line, want) {
					forwarded++
				} else if !strings.HasPrefix(line, "200 client_closed ") {
					t.Error(line)
				}
			}
			if t.Logf("%d of %d sessions forwarded", forwarded, sessions); forwarded < sessions/2 {
				t.Errorf("of %d sessions %d were forwarded: the limit isn't tried", sessions, forwarded)
			}
		})
	}
}
