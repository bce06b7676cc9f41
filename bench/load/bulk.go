// SPDX-License-Identifier: Apache-2.0

package load

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const chunk = 256 << 10

// bulkDown drops what arrives on its streams without copying it, half-closes
// them at the end of the window and reads on to their end.
func (w *worker) bulkDown(fds []int) error {
	for _, fd := range fds {
		if errno := epollAdd(w.ep, fd, unix.EPOLLIN); errno != 0 {
			return fmt.Errorf("client: epoll: %w", errno)
		}
	}
	events := make([]unix.EpollEvent, 64)
	live, ending, limit := len(fds), false, int64(0)
	for live > 0 {
		n := epollWait(w.ep, events, 20*time.Millisecond)
		for _, ev := range events[:n] {
			got, errno := recv(int(ev.Fd), w.buf, unix.MSG_TRUNC|unix.MSG_DONTWAIT)
			if errno == unix.EAGAIN {
				continue
			}
			if errno != 0 || got == 0 {
				live--
				w.ended(int(ev.Fd), errno, ending)
				continue
			}
			w.res.Total += uint64(got)
			if w.look() == measuring {
				w.res.Bytes += uint64(got)
			}
		}
		if !ending && w.look() == stopping {
			ending, limit = true, nanotime()+int64(endLimit)
			for _, fd := range fds {
				shutdownWrite(fd)
			}
		}
		if ending && nanotime() > limit {
			w.res.Short += live
			w.res.Errors["no end of stream within "+endLimit.String()] += live
			return nil
		}
	}
	return nil
}

func (w *worker) ended(fd int, errno unix.Errno, expected bool) {
	closeFD(fd)
	if errno == 0 && expected {
		return
	}
	w.res.Short++
	if errno != 0 {
		w.fault(errno)
		return
	}
	w.fault(errClosed)
}

// bulkUp writes until the window ends, half-closes, and waits until the other
// side, which has then read everything, closes.
func (w *worker) bulkUp(fds []int) error {
	for _, fd := range fds {
		if errno := epollAdd(w.ep, fd, unix.EPOLLOUT); errno != 0 {
			return fmt.Errorf("client: epoll: %w", errno)
		}
	}
	events := make([]unix.EpollEvent, 64)
	for w.look() != stopping {
		n := epollWait(w.ep, events, 20*time.Millisecond)
		for _, ev := range events[:n] {
			sent, errno := send(int(ev.Fd), w.buf[:chunk], unix.MSG_DONTWAIT)
			if errno == unix.EAGAIN {
				continue
			}
			if errno != 0 {
				return fmt.Errorf("client: stream broke: %w", errno)
			}
			w.res.Total += uint64(sent)
			if w.look() == measuring {
				w.res.Bytes += uint64(sent)
			}
		}
	}
	limit := unix.Timeval{Sec: int64(endLimit / time.Second)}
	for _, fd := range fds {
		shutdownWrite(fd)
	}
	for _, fd := range fds {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
			return err
		}
		n, errno := recv(fd, w.buf, 0)
		w.ended(fd, errno, n == 0)
	}
	return nil
}
