// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"

	"sluice/accesslog"
)

// A reset in the middle of bulk is a reset to the other side: splice(2) takes
// the socket's error, and a read after it would find a clean end.
func TestResetInBulk(t *testing.T) {
	datapaths(t, func(t *testing.T, path string) {
		for range 3 {
			r := newRigOf(t, path, []string{serve(t, func(c net.Conn) {
				io.CopyN(c, newStream(8, 'b'), 4<<20)
				io.ReadFull(c, make([]byte, 1)) // all of it has arrived
				c.(*net.TCPConn).SetLinger(0)
			})}, nil, Options{Loops: 1})
			c := r.dial()
			if _, err := io.CopyN(io.Discard, c, 4<<20); err != nil {
				t.Fatal(err)
			}
			c.Write([]byte("x"))
			if n, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client sees %d bytes, %v, not a reset", n, err)
			}
			c.Close()
			if s := r.ended(1)[0]; s.Reason != accesslog.BackendReset {
				t.Errorf("record %s", s.Reason)
				return
			}
		}
	})
}
