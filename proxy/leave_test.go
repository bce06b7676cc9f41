// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/config"
)

// TestCloseAtDescriptorLimit: who waits in the queue of a front that is closed
// is served as descriptors become free, and no sooner; what is left at the
// limit is reset.
func TestCloseAtDescriptorLimit(t *testing.T) {
	r := newRigOf(t, "relay", []string{serve(t, echo)}, nil, Options{Loops: 2, MaxSessionFDs: 8})
	most := 0
	b := make([]byte, 1)
	answered := func(c net.Conn, wait time.Duration) error {
		most = max(most, r.engine.sessions.Live())
		c.SetReadDeadline(time.Now().Add(wait))
		_, err := io.ReadFull(c, b)
		return err
	}
	var served, waiting []net.Conn
	for range 12 {
		c := r.dial()
		defer c.Close()
		c.Write([]byte("x"))
		if len(served) < 4 {
			if err := answered(c, 10*time.Second); err != nil {
				t.Fatal(err)
			}
			served = append(served, c)
		} else {
			waiting = append(waiting, c)
		}
	}
	r.front.Close(time.Minute)
	for _, c := range waiting {
		if err := answered(c, 20*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("at the limit: %v, want it to wait", err)
		}
	}
	select {
	case <-r.front.Done():
		t.Fatal("closed with clients in the queue")
	default:
	}
	for len(waiting) > 2 {
		served[0].Close()
		served = served[1:]
		// Which of those that wait is next is the kernel's to say.
		next := -1
		for end := time.Now().Add(10 * time.Second); next < 0; {
			if time.Now().After(end) {
				t.Fatal("a descriptor is free, and nobody is served")
			}
			next = slices.IndexFunc(waiting, func(c net.Conn) bool {
				err := answered(c, time.Millisecond)
				if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatalf("while it waited: %v", err)
				}
				return err == nil
			})
		}
		served = append(served, waiting[next])
		waiting = slices.Delete(waiting, next, next+1)
	}
	r.front.Cut()
	<-r.front.Done()
	for _, c := range waiting {
		if err := answered(c, 10*time.Second); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("left in the queue: %v, want a reset", err)
		}
	}
	if most > 4 {
		t.Errorf("%d sessions at once with descriptors for 4", most)
	}
}

// TestUnixFrontOfOthers: a unix front that closes leaves its path alone if
// somebody else has it by then.
func TestUnixFrontOfOthers(t *testing.T) {
	r := newRig(t, "relay", []string{serve(t, echo)}, nil)
	path := filepath.Join(t.TempDir(), "f")
	front, err := r.engine.Bind(config.Address{Path: path}, 16, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	front.Serve(r.settings)
	if err := os.Rename(path, path+".aside"); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	front.Close(time.Minute)
	<-front.Done()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the new owner's path is gone: %v", err)
	}
	c.Close()
}

// TestAcceptsAgain: a loop that can't watch its listening socket tries again
// until it can.
func TestAcceptsAgain(t *testing.T) {
	r := newRigOf(t, "relay", []string{serve(t, echo)}, nil, Options{Loops: 1})
	l, a := r.engine.loops[0], r.front.acc[0]
	file, err := os.CreateTemp(t.TempDir(), "") // epoll_ctl(2) refuses a file: EPERM
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	listening := a.fd
	l.call(func() {
		l.deregister(a.fd, a.handle)
		a.handle, a.fd = -1, int32(file.Fd())
		a.start(l)
	})
	c := r.dial()
	defer c.Close()
	c.Write([]byte("x"))
	b := make([]byte, 1)
	c.SetReadDeadline(time.Now().Add(3 * retryTime))
	if _, err := io.ReadFull(c, b); err == nil {
		t.Fatal("accepted from a file")
	}
	l.call(func() { a.fd = listening })
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadFull(c, b); err != nil {
		t.Errorf("not accepted when it can be again: %v", err)
	}
}
