// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"io"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A write that found no memory is tried again although no event comes.
func TestWriteIsTriedAgain(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		for _, errno := range []unix.Errno{unix.ENOBUFS, unix.ENOMEM, unix.EINTR} {
			t.Run(network+" "+errno.Error(), func(t *testing.T) {
				addr := "127.0.0.1:0"
				if network == "unix" {
					addr = filepath.Join(t.TempDir(), "b")
				}
				r := newRig(t, "relay", []string{serveOn(t, network, addr, echo)}, nil)
				c := r.dial()
				defer c.Close()
				c.SetDeadline(time.Now().Add(10 * time.Second))
				warm(t, c)
				s := r.session()
				s.loop.call(func() {
					if !s.mayRetry(&s.up, errno) {
						t.Error("taken for the end of the connection")
					}
					b := s.loop.getBuffer(4)
					s.hold(&s.up, b[:copy(b, "more")])
				})
				b := make([]byte, 4)
				if _, err := io.ReadFull(c, b); err != nil || string(b) != "more" {
					t.Errorf("%q, %v", b, err)
				}
			})
		}
	}
}
