// SPDX-License-Identifier: Apache-2.0

package load

import (
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"
)

// request is a connection with at most one request on its way.
type request struct {
	due  int64 // when it was, or should have been, sent
	left int   // bytes of the answer that are missing; 0: idle
}

var errClosed = fmt.Errorf("closed by the other side")

// keepAlive sends the next request of each connection when the answer is there.
// A single connection is waited for in the read itself, as a simple client does.
func (w *worker) keepAlive(fds []int) error {
	if len(fds) == 1 {
		return w.pingPong(fds[0])
	}
	msg := make([]byte, w.spec.Size)
	table := w.register(fds)
	for _, fd := range fds {
		w.ask(fd, table[fd], msg, nanotime())
	}
	events := make([]unix.EpollEvent, 256)
	for w.look() != stopping {
		n := epollWait(w.ep, events, 50*time.Millisecond)
		for _, ev := range events[:n] {
			fd := int(ev.Fd)
			done, err := w.answer(fd, table[fd])
			if err != nil {
				fd, table = w.reopen(fd, table, err)
				done = fd >= 0
			}
			if done {
				w.ask(fd, table[fd], msg, nanotime())
			}
		}
	}
	return nil
}

func (w *worker) pingPong(fd int) error {
	msg := make([]byte, w.spec.Size)
	limit := unix.Timeval{Sec: 5}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return err
	}
	for w.look() != stopping {
		begin := nanotime()
		if _, errno := send(fd, msg, 0); errno != 0 {
			return fmt.Errorf("client: sending: %w", errno)
		}
		for left := len(msg); left > 0; {
			n, errno := recv(fd, w.buf, 0)
			if errno != 0 || n == 0 {
				return fmt.Errorf("client: no answer (%d bytes, %v)", n, errno)
			}
			left -= n
		}
		w.done(begin)
	}
	return nil
}

// paced sends Rate requests a second, each on the next idle connection. The
// intervals vary by half, so that they don't keep step with the kernel's tick.
// A latency counts from the time at which the request was due.
func (w *worker) paced(fds []int) error {
	msg := make([]byte, w.spec.Size)
	table := w.register(fds)
	idle := append([]int(nil), fds...)
	interval := 1e9 / w.spec.Rate
	due := nanotime()
	events := make([]unix.EpollEvent, 256)
	for w.look() != stopping {
		wait := 50 * time.Millisecond
		if len(idle) > 0 {
			wait = min(wait, time.Duration(due-nanotime()))
		}
		n := epollWait(w.ep, events, wait)
		for _, ev := range events[:n] {
			fd := int(ev.Fd)
			done, err := w.answer(fd, table[fd])
			if err != nil {
				fd, table = w.reopen(fd, table, err)
				done = fd >= 0
			}
			if done {
				idle = append(idle, fd)
			}
		}
		for now := nanotime(); due <= now; due += int64(interval * (0.5 + rand.Float64())) {
			if len(idle) == 0 {
				w.res.Missed++
				break
			}
			fd := idle[0]
			idle = idle[1:]
			w.ask(fd, table[fd], msg, due)
		}
	}
	return nil
}

// register makes the connections non-blocking members of the epoll set.
func (w *worker) register(fds []int) map[int]*request {
	table := make(map[int]*request, len(fds))
	for _, fd := range fds {
		w.join(fd, table)
	}
	return table
}

func (w *worker) join(fd int, table map[int]*request) {
	if err := unix.SetNonblock(fd, true); err != nil {
		w.fault(err)
	}
	if errno := epollAdd(w.ep, fd, unix.EPOLLIN); errno != 0 {
		w.fault(errno)
	}
	table[fd] = &request{}
}

func (w *worker) ask(fd int, q *request, msg []byte, due int64) {
	q.due, q.left = due, len(msg)
	if _, errno := send(fd, msg, 0); errno != 0 {
		w.fault(errno) // the broken connection also shows up as readable
	}
}

// answer reads, and tells whether an answer is complete.
func (w *worker) answer(fd int, q *request) (bool, error) {
	n, errno := recv(fd, w.buf, 0)
	switch {
	case errno == unix.EAGAIN:
		return false, nil
	case errno != 0:
		return false, errno
	case n == 0:
		return false, errClosed
	}
	if q.left -= n; q.left > 0 {
		return false, nil
	}
	w.done(q.due)
	return true, nil
}

func (w *worker) done(begin int64) {
	if w.look() == measuring {
		w.hist.Add(nanotime() - begin)
		w.res.Done++
	}
}

// reopen replaces a connection that broke; -1 when that fails.
func (w *worker) reopen(fd int, table map[int]*request, err error) (int, map[int]*request) {
	w.fault(err)
	w.res.Lost++
	closeFD(fd)
	delete(table, fd)
	fd, err = w.dialNext(true)
	if err != nil {
		w.fault(err)
		return -1, table
	}
	w.join(fd, table)
	return fd, table
}
