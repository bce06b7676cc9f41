// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/accesslog"
)

// A pipe that doesn't give back what was put into it ends the session whose
// bytes it has, and no other session meets them.
func TestPipeThatKeepsBytes(t *testing.T) {
	const size = 4 << 20
	r := newRigOf(t, "relay", []string{serve(t, func(c net.Conn) {
		io.Copy(io.Discard, c)
		io.CopyN(c, newStream(6, 'd'), size)
	})}, nil, Options{Loops: 1})
	l := r.engine.loops[0]
	var other [2]int
	if err := unix.Pipe2(other[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(other[1])
	var kept int32
	l.call(func() { kept, l.pipe.r = l.pipe.r, int32(other[0]) })
	defer rawClose(kept)
	get := func() (uint32, error) {
		c := r.dial()
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		c.CloseWrite()
		return readAll(c, newStream(6, 'd'), 0)
	}
	if n, err := get(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client whose bytes are lost has %d and %v", n, err)
	}
	if s := r.ended(1)[0]; s.Reason != accesslog.Internal {
		t.Errorf("record %+v", s)
	}
	if n, err := get(); err != nil || n != size {
		t.Errorf("the next one has %d bytes, %v", n, err)
	}
	r.ended(2)
	r.empty()
}
