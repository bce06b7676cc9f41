// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"sluice/internal/nstest"
)

// TestHandOver edits a listener between wildcards and addresses of its port.
// Nobody is refused, cut or kept waiting, and the order of picks goes on,
// whether the kernel picks or we do.
func TestHandOver(t *testing.T) {
	if !ownNamespace(t) {
		t.Skip("counts what its network namespace does: run as root")
	}
	for _, u := range users() {
		t.Run(u.name, func(t *testing.T) {
			port := freePort(t)
			addr := fmt.Sprintf("127.0.0.1:%d", port)
			pool := poolOf("round_robin", []int{1, 1, 1}, named(t, 3))
			cycle := [][]string{{"127.0.0.1"}, {""}, {"0.0.0.0"}, {"127.0.0.1", "[::1]"}, {"[::]"}, {"127.0.0.1", "127.0.0.2"}, {"0.0.0.0"}, {""}}
			body := func(k int) string {
				var listen []string
				for _, host := range cycle[k%len(cycle)] {
					listen = append(listen, fmt.Sprintf("%s:%d", host, port))
				}
				return pool + fmt.Sprintf("listeners: [{name: l, listen: [%s], pool: p}]\n", quoted(listen))
			}
			i := startAs(t, u, body(0))
			before := nstest.SYNsSentAgain(t)
			stop, ended := make(chan struct{}), make(chan string)
			go func() {
				var order strings.Builder
				defer func() { ended <- order.String() }()
				for {
					select {
					case <-stop:
						return
					default:
					}
					c, err := letter(addr)
					if err != nil {
						t.Error(err)
						return
					}
					order.WriteByte(c)
				}
			}()
			for k := 1; k < 50; k++ {
				i.write(body(k))
				eventually(t, func() string {
					if n := i.metric(`sluice_config_reloads_total{result="ok"}`); n < float64(k) {
						return fmt.Sprintf("%.0f edits are in force, want %d", n, k)
					}
					return ""
				})
			}
			close(stop)
			order := <-ended
			if want := strings.Repeat("abc", len(order)/3+1)[:len(order)]; order != want {
				t.Errorf("the order of picks: %s", order)
			}
			if n := nstest.SYNsSentAgain(t) - before; n != 0 {
				t.Errorf("%d SYNs for %d sessions had to be sent again", n, len(order))
			}
		})
	}
}
