// SPDX-License-Identifier: Apache-2.0

package load

import (
	"time"

	"golang.org/x/sys/unix"
)

// edge is EPOLLET, which x/sys has as a negative number on some architectures.
const edge = uint32(1) << 31

// attempt is one connection with at most one request on its way.
type attempt struct {
	begin    int64
	messages int  // whose echo isn't there yet
	sent     bool // the one that is on its way
	left     int  // bytes of its echo that are missing
}

// connRate keeps len(slots) connections going, each of which carries
// spec.Messages messages, one after the other, and is closed by the client when
// the last echo is there. With a Rate, new ones start on schedule, as long as a
// slot is free.
func (w *worker) connRate(slots []int) error {
	free := len(slots)
	table := map[int]*attempt{}
	msg := make([]byte, w.spec.Size)
	interval := int64(0)
	if w.spec.Rate > 0 {
		interval = int64(1e9 / w.spec.Rate * float64(min(max(w.spec.Workers, 1), w.spec.Conns)))
	}
	due := nanotime()
	events := make([]unix.EpollEvent, 256)
	for w.look() != stopping {
		for ; free > 0 && due <= nanotime(); due += interval {
			if !w.begin(table) {
				break
			}
			free--
		}
		wait := 50 * time.Millisecond
		if interval > 0 && free > 0 {
			wait = min(wait, time.Duration(due-nanotime()))
		} else if free > 0 {
			wait = time.Millisecond
		}
		n := epollWait(w.ep, events, wait)
		for _, ev := range events[:n] {
			fd := int(ev.Fd)
			if a := table[fd]; a != nil && w.advance(fd, a, msg) {
				delete(table, fd)
				closeFD(fd)
				free++
			}
		}
	}
	for fd := range table {
		closeFD(fd)
	}
	return nil
}

func (w *worker) begin(table map[int]*attempt) bool {
	begin := nanotime()
	fd, err := w.dialNext(false)
	if err != nil {
		w.fault(err)
		return false
	}
	if errno := epollAdd(w.ep, fd, unix.EPOLLIN|unix.EPOLLOUT|edge); errno != 0 {
		w.fault(errno)
		closeFD(fd)
		return false
	}
	table[fd] = &attempt{begin: begin, messages: max(w.spec.Messages, 1), left: w.spec.Size}
	return true
}

// advance tells whether the connection is over, well or not.
func (w *worker) advance(fd int, a *attempt, msg []byte) bool {
	for {
		if !a.sent {
			_, errno := send(fd, msg, 0)
			if errno == unix.EAGAIN || errno == unix.ENOTCONN {
				return false
			}
			if errno != 0 {
				w.lost(errno)
				return true
			}
			a.sent = true
		}
		n, errno := recv(fd, w.buf, 0)
		switch {
		case errno == unix.EAGAIN:
			return false
		case errno != 0:
			w.lost(errno)
			return true
		case n == 0:
			w.lost(errClosed)
			return true
		}
		if a.left -= n; a.left > 0 {
			continue
		}
		if a.messages--; a.messages == 0 {
			w.done(a.begin)
			return true
		}
		a.sent, a.left = false, len(msg)
	}
}

func (w *worker) lost(err error) {
	w.fault(err)
	w.res.Lost++
}
