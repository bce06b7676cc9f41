// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// rig is what a step works with: a client, the two sockets between, and a
// server, each non-blocking.
//
//	client --- front | back --- server
type rig struct {
	patience
	s      *Splice
	flow   uint32
	client int
	front  int
	back   int
	server int
}

// runStep gives a step fresh sockets and a flow, and takes both back.
func runStep(ctx context.Context, s *Splice, st step) (string, error) {
	flow, ok := s.Reserve()
	if !ok {
		return "", errors.New("no flow number left")
	}
	r := &rig{s: s, flow: flow, patience: patience{limit(ctx)}, client: -1, front: -1, back: -1, server: -1}
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
	if dialled, err = socket(family, buf); err != nil {
		return -1, -1, err
	}
	if accepted, err = r.connect(l, dialled, addr); err != nil {
		_ = unix.Close(dialled)
		if ip6 && errors.Is(err, unix.EADDRNOTAVAIL) {
			err = errNoIPv6
		}
		return -1, -1, err
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

// direction is one: 0 from the client, 1 from the server.
func (r *rig) direction(side uint32) *Direction { return r.s.Direction(2*r.flow + side) }

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
