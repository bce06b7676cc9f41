// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"time"

	"golang.org/x/sys/unix"
)

// The kernel lets a receive buffer grow by what is read from it within a round
// trip, the further the more that exceeds what was read in the one before
// (tcp_rcvbuf_grow). A session whose client takes nothing begins with its backend's
// bytes being read as fast as they come, into the client's send buffer: with a
// backend that is near, hundreds of KiB at once. Its buffer may then hold several
// MiB, and fills. So the buffer of a backend's socket stays as it is until the
// client has shown that it reads.
const (
	// freshRead is how much is read at once from a backend whose buffer isn't bound
	// yet: less than the ten segments that could make it grow.
	freshRead = 8 << 10
	// provenBytes is what a client must have acknowledged: more than the receive
	// buffer that a socket begins with takes without a reader (tcp_rmem: 128 KiB).
	provenBytes = 256 << 10
	// provenWindow is what the backend may then send without an acknowledgement,
	// at least; the kernel raises it further.
	provenWindow = 512 << 10
	// farBackend is the round trip from which a buffer is never bound: the window
	// that it begins with, 64 KiB, would hold the bytes up.
	farBackend = time.Millisecond

	rcvbufLock = 2 // SOCK_RCVBUF_LOCK in include/uapi/linux/socket.h
)

// window says who decides about the receive buffer of a session's backend socket.
type window uint8

const (
	windowFresh window = iota // the kernel; little has come yet
	windowBound               // nobody: it stays as it is
	windowFree                // the kernel
)

// roomFor is the buffer that src is read into.
func (s *pair) roomFor(src *end) []byte {
	if src == &s.up && s.window == windowFresh {
		return s.loop.buf[:freshRead]
	}
	return s.loop.buf
}

// mindWindow is told of each read, once its bytes have been given to the other side.
func (s *pair) mindWindow(src *end, got int) {
	switch {
	case src != &s.up:
	case s.window == windowFresh && got == freshRead:
		s.bindWindow()
	case s.window == windowBound:
		s.proveClient()
	}
}

// bindWindow keeps the backend's receive buffer as it is until the client has
// proved to read. Kernels before 5.14 can't, and a unix socket has none.
func (s *pair) bindWindow() {
	s.window = windowFree
	var ti unix.TCPInfo
	if !tcpInfo(s.up.fd, &ti) || time.Duration(ti.Min_rtt)*time.Microsecond >= farBackend {
		return
	}
	if rawSetInt(s.up.fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK, rcvbufLock) == 0 {
		s.window = windowBound
	}
}

// proveClient has the kernel decide again once the client has taken enough.
func (s *pair) proveClient() {
	if s.window != windowBound || s.totals().ToClient < provenBytes || s.clientTook() < provenBytes {
		return
	}
	s.window = windowFree
	fd := s.up.fd
	rawSetInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK, 0)
	// What was read within a round trip is what the window allowed, so the
	// kernel would never see a reason to raise it. A low-water mark makes room
	// for itself (tcp_set_rcvlowat), and the room stays.
	rawSetInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, provenWindow)
	rawSetInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, 1)
}

// clientTook is how many of the bytes given to the client have left for it and
// are acknowledged. In the map not all of them are in its socket yet.
func (s *pair) clientTook() uint64 {
	if s.mover == nil {
		return s.cli.out - min(s.cli.out, outq(s.cli.fd))
	}
	var ti unix.TCPInfo
	tcpInfo(s.cli.fd, &ti)
	return ti.Bytes_acked
}
