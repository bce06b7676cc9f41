// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestQueueAtDescriptorLimit: whoever waits in an accept queue for want of
// descriptors is served when its listener goes, or the process ends, as soon
// as there are some.
func TestQueueAtDescriptorLimit(t *testing.T) {
	for name, remove := range map[string]func(i *instance, other string){
		"edit":    func(i *instance, other string) { i.write(one(other, tcp(t, echo).addr)) },
		"SIGTERM": func(i *instance, _ string) { i.signal(unix.SIGTERM) },
	} {
		t.Run(name, func(t *testing.T) {
			addr, other := front(t), front(t)
			i := startWith(t, user{}, one(addr, tcp(t, echo).addr), func(i *instance) {
				i.wrap = "ulimit -n 150; exec \"$0\" \"$@\""
			})
			// More than the descriptors that are kept back would do for.
			var held, waiting []net.Conn
			b := make([]byte, 1)
			for range 120 {
				c, err := net.DialTimeout("tcp", addr, patience)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				c.Write([]byte("x"))
				c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
				if len(waiting) > 0 {
					waiting = append(waiting, c)
				} else if _, err := io.ReadFull(c, b); err == nil {
					held = append(held, c)
				} else {
					waiting = append(waiting, c)
				}
			}
			if len(waiting) < 40 {
				t.Fatalf("%d sessions are served, %d wait: not what is to be tried", len(held), len(waiting))
			}
			remove(i, other)
			time.Sleep(300 * time.Millisecond)
			for _, c := range held {
				c.Close()
			}
			var wg sync.WaitGroup
			for _, c := range waiting {
				wg.Go(func() {
					c.SetReadDeadline(time.Now().Add(patience))
					if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
						t.Errorf("one of %d that waited: %v", len(waiting), err)
					}
					c.Close()
				})
			}
			wg.Wait()
			i.lines(120)
			if name == "SIGTERM" {
				if code := i.exitCode(); code != 0 {
					t.Errorf("exit code %d", code)
				}
			}
		})
	}
}
