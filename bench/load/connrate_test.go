// SPDX-License-Identifier: Apache-2.0

package load

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A connection's messages go one by one: the next once the echo of the last is
// whole, in however many pieces it comes.
func TestMessagesOfAConnectionGoOneByOne(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer closeFD(pair[0])
	defer closeFD(pair[1])
	const size, messages = 8, 3
	r := &run{}
	r.phase.Store(measuring)
	w := &worker{run: r, buf: make([]byte, 1024), res: Result{Errors: map[string]int{}}}
	a, msg, buf := &attempt{begin: nanotime(), messages: messages, left: size}, make([]byte, size), make([]byte, 1024)
	for i := range messages {
		if w.advance(pair[0], a, msg) {
			t.Fatalf("over after %d messages of %d", i, messages)
		}
		if n, errno := recv(pair[1], buf, 0); n != size || errno != 0 {
			t.Fatalf("message %d: %d bytes, %v", i, n, errno)
		}
		send(pair[1], msg[:3], 0)
		if w.advance(pair[0], a, msg) {
			t.Fatalf("over with half an echo of message %d", i)
		}
		if n, errno := recv(pair[1], buf, 0); errno != unix.EAGAIN {
			t.Fatalf("%d bytes before the echo of message %d was whole", n, i)
		}
		send(pair[1], msg[3:], 0)
	}
	if !w.advance(pair[0], a, msg) {
		t.Error("not over after the last echo")
	}
	if w.res.Done != 1 || w.res.Lost != 0 {
		t.Errorf("%d done, %d lost", w.res.Done, w.res.Lost)
	}
}

// A connection that the other side closes between two messages is lost.
func TestConnectionThatEndsEarlyIsLost(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer closeFD(pair[0])
	w := &worker{run: &run{}, buf: make([]byte, 1024), res: Result{Errors: map[string]int{}}}
	a, msg := &attempt{messages: 2, left: 4}, make([]byte, 4)
	if w.advance(pair[0], a, msg) {
		t.Fatal("over before the echo")
	}
	send(pair[1], msg, 0)
	if w.advance(pair[0], a, msg) {
		t.Fatal("over after one message of two")
	}
	closeFD(pair[1])
	if !w.advance(pair[0], a, msg) || w.res.Lost != 1 || w.res.Done != 0 {
		t.Errorf("%d lost, %d done", w.res.Lost, w.res.Done)
	}
}
