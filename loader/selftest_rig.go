// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// rig is what a step works with: a client, the two sockets between, and a
// server, each non-blocking.
//
//	client --- front | back --- server
type rig struct {
	s        *Splice
	flow     uint32
	deadline time.Time
	client   int
	front    int
	back     int
	server   int
}

// errLate ends a step that waited in vain.
var errLate = errors.New("not within the time allowed")

// runStep gives a step fresh sockets and a flow, and takes both back.
func runStep(ctx context.Context, s *Splice, st step) (string, error) {
	deadline := time.Now().Add(stepTime)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	flow, ok := s.Reserve()
	if !ok {
		return "", errors.New("no flow number left")
	}
	r := &rig{s: s, flow: flow, deadline: deadline, client: -1, front: -1, back: -1, server: -1}
	defer r.close()
	var err error
	if r.client, r.front, err = r.pair(st.ip6, st.buf); err == nil {
		r.back, r.server, err = r.pair(st.ip6, st.buf)
	}
	if st.ip6 && errors.Is(err, errNoIPv6) {
		return "IPv6 is off here", nil
	}
	if err != nil {
		return "", fmt.Errorf("making sockets: %w", err)
	}
	s.Drain(func(uint32) {}) // what earlier steps left
	return st.run(r)
}

func (r *rig) close() {
	for _, fd := range []int{r.client, r.front, r.back, r.server} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
	r.s.Remove(r.flow)
	r.s.Free(r.flow)
}

var errNoIPv6 = errors.New("no IPv6")

// pair makes a connection over loopback: first the end that dialled. buf, if
// not 0, sizes all buffers.
func (r *rig) pair(ip6 bool, buf int) (dialled, accepted int, err error) {
	family, addr := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	if ip6 {
		family, addr = unix.AF_INET6, &unix.SockaddrInet6{Addr: [16]byte{15: 1}}
	}
	l, err := socket(family, buf)
	if err != nil {
		if ip6 {
			err = errNoIPv6
		}
		return -1, -1, err
	}
	defer unix.Close(l)
	if err := unix.Bind(l, addr); err != nil {
		if ip6 {
			err = errNoIPv6
		}
		return -1, -1, err
	}
	if err := unix.Listen(l, 1); err != nil {
		return -1, -1, err
	}
	if addr, err = unix.Getsockname(l); err != nil {
		return -1, -1, err
	}
	if dialled, err = socket(family, buf); err != nil {
		return -1, -1, err
	}
	if err = unix.Connect(dialled, addr); errors.Is(err, unix.EINPROGRESS) {
		err = r.wait(dialled, unix.POLLOUT)
	}
	if err == nil {
		err = r.wait(l, unix.POLLIN)
	}
	if err == nil {
		accepted, _, err = unix.Accept4(l, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	}
	if err != nil {
		_ = unix.Close(dialled)
		return -1, -1, err
	}
	for _, fd := range []int{dialled, accepted} {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	return dialled, accepted, nil
}

func socket(family, buf int) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err == nil && buf > 0 {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buf)
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, buf)
	}
	return fd, err
}

func (r *rig) add() error {
	oneWay, err := r.s.Add(r.flow, r.front, r.back)
	if oneWay {
		err = errors.New("the back socket was refused")
	}
	return err
}

// half is one direction: 0 from the client, 1 from the server.
func (r *rig) half(side uint32) *Half { return r.s.Half(2*r.flow + side) }

// ready polls for d at most; what it reports is 0 when nothing came.
func (r *rig) ready(fd int, events int16, d time.Duration) int16 {
	until := time.Now().Add(d)
	if until.After(r.deadline) {
		until = r.deadline
	}
	for {
		ms := max(0, int((time.Until(until)+time.Millisecond-1)/time.Millisecond))
		p := []unix.PollFd{{Fd: int32(fd), Events: events}}
		switch _, err := unix.Poll(p, ms); {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0
		}
		return p[0].Revents
	}
}

// wait waits until the step's deadline.
func (r *rig) wait(fd int, events int16) error {
	if r.ready(fd, events, time.Until(r.deadline)) == 0 {
		return errLate
	}
	return nil
}

// until polls a condition that no descriptor tells of.
func (r *rig) until(f func() bool) error {
	for pause := 50 * time.Microsecond; !f(); pause = min(2*pause, 5*time.Millisecond) {
		if time.Now().After(r.deadline) {
			return errLate
		}
		time.Sleep(pause)
	}
	return nil
}

func (r *rig) send(fd int, data []byte) error {
	for len(data) > 0 {
		n, err := unix.Write(fd, data)
		switch {
		case err == nil:
			data = data[n:]
		case errors.Is(err, unix.EAGAIN):
			if err := r.wait(fd, unix.POLLOUT); err != nil {
				return fmt.Errorf("sending: %w", err)
			}
		case !errors.Is(err, unix.EINTR):
			return fmt.Errorf("sending: %w", err)
		}
	}
	return nil
}

// receive reads until want bytes or the end of the stream.
func (r *rig) receive(fd, want int) ([]byte, error) {
	got := make([]byte, 0, want)
	for len(got) < want {
		n, err := unix.Read(fd, got[len(got):want])
		switch {
		case err == nil && n == 0:
			return got, nil
		case err == nil:
			got = got[:len(got)+n]
		case errors.Is(err, unix.EAGAIN):
			if err := r.wait(fd, unix.POLLIN); err != nil {
				return got, fmt.Errorf("%d of %d bytes came: %w", len(got), want, err)
			}
		case !errors.Is(err, unix.EINTR):
			return got, fmt.Errorf("%d of %d bytes came: %w", len(got), want, err)
		}
	}
	return got, nil
}

// move sends data at one end and wants it at the other.
func (r *rig) move(from, to int, data []byte) error {
	if err := r.send(from, data); err != nil {
		return err
	}
	got, err := r.receive(to, len(data))
	if err != nil {
		return err
	}
	return same(got, data)
}

// same compares, and says where a difference is.
func same(got, want []byte) error {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Errorf("byte %d is wrong", i)
		}
	}
	if len(got) != len(want) {
		return fmt.Errorf("%d bytes came instead of %d", len(got), len(want))
	}
	return nil
}

// pattern is n bytes that don't repeat within any power of two.
func pattern(n int) []byte {
	b := make([]byte, n)
	x := uint32(2463534242)
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return b
}

// sockError takes SO_ERROR.
func sockError(fd int) error {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && n != 0 {
		err = unix.Errno(n)
	}
	return err
}

// taken is how many bytes a socket's send queue has ever taken. Acknowledged
// bytes are read first: a byte acknowledged in between is then missed, never
// counted twice.
func taken(fd int) (uint64, error) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, err
	}
	unsent, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	return info.Bytes_acked + uint64(unsent), err
}
