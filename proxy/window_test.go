// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// needBufferLock skips where a receive buffer's size can't be held (before 5.14).
func needBufferLock(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK, rcvbufLock); err != nil {
		t.Skipf("this kernel has no SO_BUF_LOCK: %v", err)
	}
}

// backendBuffer is the size of the receive buffer of the only session's backend
// socket, and who decides about it.
func (r *rig) backendBuffer() (size int, w window) {
	r.t.Helper()
	s := r.session()
	var err error
	s.loop.call(func() {
		w = s.window
		size, err = unix.GetsockoptInt(int(s.up.fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return size, w
}

// A client that doesn't read has its backend's receive buffer as small as it was
// made; one that reads, or begins to, has it grow, with every byte in order.
func TestBackendBufferFollowsTheClient(t *testing.T) {
	needBufferLock(t)
	const size = 16 << 20
	withSockets(t, func(t *testing.T, path string) {
		begin := make(chan bool) // chatty: small messages first, which lead into the map
		r := newRig(t, path, []string{serve(t, func(conn net.Conn) {
			if <-begin {
				io.CopyN(conn, struct{ io.Reader }{conn}, warmBytes)
				<-begin
			}
			io.CopyN(conn, newStream(4, 'd'), size)
			io.Copy(io.Discard, conn)
		})}, nil)
		for _, c := range []struct {
			name           string
			chatty, stalls bool
		}{
			{"bulk at once, unread", false, true},
			{"bulk at once, read", false, false},
			{"bulk after a talk, unread", true, true},
			{"bulk after a talk, read", true, false},
		} {
			t.Run(c.name, func(t *testing.T) {
				client := r.dial()
				defer r.empty()
				defer client.Close()
				client.SetDeadline(time.Now().Add(30 * time.Second))
				r.connectedOne()
				small, _ := r.backendBuffer()
				before := r.taken()
				begin <- c.chatty
				if c.chatty {
					warm(t, client)
					begin <- true
				}
				if c.stalls {
					r.settled(before + warmBytes)
					if now, w := r.backendBuffer(); now != small || w != windowBound {
						t.Errorf("%d bytes of buffer, %d before the client stopped reading; window %d", now, small, w)
					}
				}
				if n, err := readAll(io.LimitReader(client, size), newStream(4, 'd'), 0); err != nil || n != size {
					t.Fatalf("%d bytes, %v", n, err)
				}
				for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
					now, w := r.backendBuffer()
					if w == windowFree && now >= provenWindow {
						break
					}
					if time.Now().After(deadline) {
						t.Fatalf("the client has read all, and the buffer has %d bytes; window %d", now, w)
					}
				}
			})
		}
	})
}

// connectedOne waits until a backend has the only session there is.
func (r *rig) connectedOne() {
	r.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		n := 0
		for _, l := range r.engine.loops {
			l.call(func() {
				if s := l.sessions.head; s != nil && s.HasBackend() {
					n++
				}
			})
		}
		if n == 1 {
			return
		}
	}
	r.t.Fatal("no session has reached its backend")
}

// taken is how many bytes have come from the backend, of all sessions so far.
func (r *rig) taken() uint64 {
	r.engine.Flush()
	return r.pool.Backends()[0].Snapshot(time.Now()).Received
}

// settled waits until more than this has been taken, and then no more is.
func (r *rig) settled(more uint64) {
	r.t.Helper()
	last := uint64(0)
	for range 100 {
		time.Sleep(200 * time.Millisecond)
		now := r.taken()
		if now == last && now > more {
			return
		}
		last = now
	}
	r.t.Fatalf("%d bytes taken, more than %d wanted and then no more", last, more)
}

// Small messages are none of the window's business: nothing is asked of the kernel.
func TestBackendBufferOfSmallMessages(t *testing.T) {
	r := newRig(t, "relay", []string{serve(t, echo)}, nil)
	c := r.dial()
	defer c.Close()
	for range 10 {
		warm(t, c)
	}
	if _, w := r.backendBuffer(); w != windowFresh {
		t.Errorf("window %d", w)
	}
}
