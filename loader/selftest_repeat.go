// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// stepRepeated: a sender may repeat bytes in front of new ones, as Linux does
// when it joins small segments to send them again. They go on once.
func stepRepeated(r *rig) (string, error) {
	if err := r.add(); err != nil {
		return "", err
	}
	data := pattern(12000)
	if err := r.move(r.client, r.server, data[:10000]); err != nil {
		return "", err
	}
	f := forger{fd: r.client}
	switch err := f.open(); {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return "not tried: needs CAP_NET_RAW and CAP_NET_ADMIN", nil
	case err != nil:
		return "", err
	}
	defer f.close()
	// A little, more than one trim takes off, and nothing new but the end.
	for _, c := range []struct {
		from, to int
		flags    byte
	}{{9950, 10100, tcpPSH}, {200, 10300, tcpPSH}, {10000, 10300, tcpFIN}} {
		had := 10000 + f.sent
		if err := f.send(data[c.from:c.to], had-c.from, c.flags); err != nil {
			return "", err
		}
		f.sent = c.to - 10000
		got, err := r.receive(r.server, c.to-had)
		if err == nil {
			err = same(got, data[had:c.to])
		}
		if err != nil {
			return "", fmt.Errorf("%d new bytes behind %d repeated ones: %w", c.to-had, had-c.from, err)
		}
	}
	if err := r.wait(r.front, unix.POLLRDHUP); err != nil {
		return "", fmt.Errorf("the end of the stream isn't reported: %w", err)
	}
	if r.ready(r.server, unix.POLLIN|unix.POLLRDHUP, settle) != 0 {
		return "", errors.New("repeated bytes went on with the end of the stream")
	}
	if h := r.direction(0); h.Redirected()+h.Passed() != 10300 || h.Broken() {
		return "", fmt.Errorf("counted %d redirected, %d passed instead of 10300 together", h.Redirected(), h.Passed())
	}
	return "trimmed", nil
}

const (
	tcpFIN = 0x01
	tcpPSH = 0x08
	tcpACK = 0x10
)

// forger sends segments on a connection over IPv4 as if the connection's own
// socket did, which doesn't know of them: it can only be closed afterwards.
type forger struct {
	fd     int
	raw    int
	sent   int // bytes beyond what the socket itself has sent
	local  *unix.SockaddrInet4
	remote *unix.SockaddrInet4
	seq    uint32 // what the socket would send next
	ack    uint32
}

// open needs CAP_NET_RAW, and CAP_NET_ADMIN for the sequence numbers.
func (f *forger) open() (err error) {
	if f.raw, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	local, err := unix.Getsockname(f.fd)
	if err != nil {
		return err
	}
	remote, err := unix.Getpeername(f.fd)
	if err != nil {
		return err
	}
	f.local, f.remote = local.(*unix.SockaddrInet4), remote.(*unix.SockaddrInet4)
	f.seq, f.ack, err = sequences(f.fd)
	return err
}

func (f *forger) close() { _ = unix.Close(f.raw) }

// sequences reads the next sequence number and the next one expected, which
// the kernel tells to those who save and restore connections.
func sequences(fd int) (seq, ack uint32, err error) {
	const (
		on, offWithoutProbe  = 1, -1 // TCP_REPAIR
		recvQueue, sendQueue = 1, 2  // TCP_REPAIR_QUEUE
	)
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, on); err != nil {
		return 0, 0, err
	}
	var n [2]int
	for i, queue := range []int{sendQueue, recvQueue} {
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, queue)
		}
		if err == nil {
			n[i], err = unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
		}
	}
	off := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, offWithoutProbe)
	return uint32(n[0]), uint32(n[1]), errors.Join(err, off)
}

// send sends payload, of which the first repeated bytes were sent before.
func (f *forger) send(payload []byte, repeated int, flags byte) error {
	const ip, tcp = 20, 20
	b := make([]byte, ip+tcp, ip+tcp+len(payload))
	b[0], b[8], b[9] = 4<<4|ip/4, 64, unix.IPPROTO_TCP // the kernel adds length and checksum
	copy(b[12:], f.local.Addr[:])
	copy(b[16:], f.remote.Addr[:])
	h := b[ip:]
	binary.BigEndian.PutUint16(h[0:], uint16(f.local.Port))
	binary.BigEndian.PutUint16(h[2:], uint16(f.remote.Port))
	binary.BigEndian.PutUint32(h[4:], f.seq+uint32(f.sent)-uint32(repeated))
	binary.BigEndian.PutUint32(h[8:], f.ack)
	h[12], h[13] = tcp/4<<4, tcpACK|flags
	binary.BigEndian.PutUint16(h[14:], 512) // window
	b = append(b, payload...)
	h = b[ip:]
	pseudo := append(append([]byte(nil), b[12:20]...), 0, unix.IPPROTO_TCP, byte(len(h)>>8), byte(len(h)))
	binary.BigEndian.PutUint16(h[16:], checksum(append(pseudo, h...)))
	return unix.Sendto(f.raw, b, 0, &unix.SockaddrInet4{Addr: f.remote.Addr})
}

// checksum is the Internet checksum, RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for i, v := range b {
		sum += uint32(v) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
