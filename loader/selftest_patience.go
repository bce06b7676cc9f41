// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// patience does with sockets that don't block what a step waits for, until its
// deadline.
type patience struct{ deadline time.Time }

// errLate ends a step that waited in vain.
var errLate = errors.New("not within the time allowed")

// connect makes a connection to addr, which l gets, and gives the other end of
// dialled.
func (p patience) connect(l, dialled int, addr unix.Sockaddr) (accepted int, err error) {
	if err := unix.Bind(l, addr); err != nil {
		return -1, err
	}
	if err := unix.Listen(l, 1); err != nil {
		return -1, err
	}
	if addr, err = unix.Getsockname(l); err != nil {
		return -1, err
	}
	if err = unix.Connect(dialled, addr); errors.Is(err, unix.EINPROGRESS) {
		err = p.wait(dialled, unix.POLLOUT)
	}
	if err == nil {
		err = p.wait(l, unix.POLLIN)
	}
	if err != nil {
		return -1, err
	}
	if accepted, _, err = unix.Accept4(l, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC); err != nil {
		return -1, err
	}
	for _, fd := range []int{dialled, accepted} {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	return accepted, nil
}

// ready polls for d at most; what it reports is 0 when nothing came.
func (p patience) ready(fd int, events int16, d time.Duration) int16 {
	until := time.Now().Add(d)
	if until.After(p.deadline) {
		until = p.deadline
	}
	for {
		ms := max(0, int((time.Until(until)+time.Millisecond-1)/time.Millisecond))
		fds := []unix.PollFd{{Fd: int32(fd), Events: events}}
		switch _, err := unix.Poll(fds, ms); {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0
		}
		return fds[0].Revents
	}
}

// wait waits until the step's deadline.
func (p patience) wait(fd int, events int16) error {
	if p.ready(fd, events, time.Until(p.deadline)) == 0 {
		return errLate
	}
	return nil
}

// until polls a condition that no descriptor tells of.
func (p patience) until(f func() bool) error {
	for pause := 50 * time.Microsecond; !f(); pause = min(2*pause, 5*time.Millisecond) {
		if time.Now().After(p.deadline) {
			return errLate
		}
		time.Sleep(pause)
	}
	return nil
}

func (p patience) send(fd int, data []byte) error {
	for len(data) > 0 {
		n, err := unix.Write(fd, data)
		switch {
		case err == nil:
			data = data[n:]
		case errors.Is(err, unix.EAGAIN):
			if err := p.wait(fd, unix.POLLOUT); err != nil {
				return fmt.Errorf("sending: %w", err)
			}
		case !errors.Is(err, unix.EINTR):
			return fmt.Errorf("sending: %w", err)
		}
	}
	return nil
}

// receive reads until want bytes or the end of the stream.
func (p patience) receive(fd, want int) ([]byte, error) {
	got := make([]byte, 0, want)
	for len(got) < want {
		n, err := unix.Read(fd, got[len(got):want])
		switch {
		case err == nil && n == 0:
			return got, nil
		case err == nil:
			got = got[:len(got)+n]
		case errors.Is(err, unix.EAGAIN):
			if err := p.wait(fd, unix.POLLIN); err != nil {
				return got, fmt.Errorf("%d of %d bytes came: %w", len(got), want, err)
			}
		case !errors.Is(err, unix.EINTR):
			return got, fmt.Errorf("%d of %d bytes came: %w", len(got), want, err)
		}
	}
	return got, nil
}

// move sends data at one end and wants it at the other.
func (p patience) move(from, to int, data []byte) error {
	if err := p.send(from, data); err != nil {
		return err
	}
	got, err := p.receive(to, len(data))
	if err != nil {
		return err
	}
	return same(got, data)
}
