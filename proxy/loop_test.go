// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"testing"

	"golang.org/x/sys/unix"
)

// What is posted to a loop that has ended is dropped: the number of its wake-up
// descriptor may be somebody else's by then.
func TestPostAfterTheEnd(t *testing.T) {
	e, err := New(Options{Loops: 2})
	if err != nil {
		t.Fatal(err)
	}
	l := e.loops[1]
	e.Close()
	other, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(other)
	if other != int(l.wakefd) {
		if err := unix.Dup3(other, int(l.wakefd), unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(int(l.wakefd))
	}
	l.awake.Store(false) // as it is after the last wake-up was seen
	l.post(func() { t.Error("run after the end") })
	if n, err := unix.Read(other, make([]byte, 8)); err != unix.EAGAIN {
		t.Errorf("somebody else's descriptor was written to: %d bytes to read, %v", n, err)
	}
	if l.call(func() {}) {
		t.Error("a call on a loop that has ended says that it ran")
	}
}
