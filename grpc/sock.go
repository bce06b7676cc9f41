// SPDX-License-Identifier: Apache-2.0

package grpc

import (
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"sluice/internal/sockopt"
)

// socket is a non-blocking one. One goroutine reads and one writes at a time.
type socket struct {
	file   *os.File
	raw    syscall.RawConn
	closed atomic.Bool
	mem    *memory

	buf  *[readSize]byte // nil while there is nothing to read
	got  int
	rerr unix.Errno
	fill func(fd uintptr) bool // made once: a closure a read would be garbage

	iov   []unix.Iovec
	wait  bool
	sent  int
	werr  unix.Errno
	write func(fd uintptr) bool
}

// newSocket takes fd over, a non-blocking socket.
func newSocket(fd int, mem *memory) (*socket, error) {
	s := &socket{mem: mem, file: os.NewFile(uintptr(fd), "")}
	var err error
	if s.raw, err = s.file.SyscallConn(); err != nil {
		s.file.Close()
		return nil, err
	}
	s.fill = func(fd uintptr) bool {
		if s.buf == nil {
			if s.buf, _ = mem.reads.Get().(*[readSize]byte); s.buf == nil {
				s.buf = new([readSize]byte)
			}
		}
		for {
			n, _, e := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(s.buf)), readSize)
			switch e {
			case 0:
				s.got, s.rerr = int(n), 0
				return true
			case unix.EINTR:
			case unix.EAGAIN:
				s.letGo() // an idle connection has no buffer
				return false
			default:
				s.got, s.rerr = 0, e
				return true
			}
		}
	}
	s.write = func(fd uintptr) bool {
		for {
			n, _, e := unix.RawSyscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&s.iov[0])), uintptr(len(s.iov)))
			switch e {
			case 0:
				s.sent, s.werr = int(n), 0
				return true
			case unix.EINTR:
			case unix.EAGAIN:
				s.sent, s.werr = 0, e
				return !s.wait
			default:
				s.sent, s.werr = 0, e
				return true
			}
		}
	}
	return s, nil
}

// read waits for bytes and returns them, good until letGo or the next read.
func (s *socket) read() ([]byte, error) {
	if err := s.raw.Read(s.fill); err != nil {
		return nil, err
	}
	switch {
	case s.rerr != 0:
		return nil, s.rerr
	case s.got == 0:
		return nil, io.EOF
	}
	return s.buf[:s.got], nil
}

// letGo gives the read buffer back.
func (s *socket) letGo() {
	if s.buf != nil {
		s.mem.reads.Put(s.buf)
		s.buf = nil
	}
}

// maxIOV is IOV_MAX.
const maxIOV = 1024

// send writes what it can of parts, waiting for room if wait says so, and
// returns what is left. An error of unix.EAGAIN: there is no room.
func (s *socket) send(parts [][]byte, wait bool) (left [][]byte, err error) {
	for len(parts) > 0 {
		s.iov = s.iov[:0]
		for _, p := range parts[:min(len(parts), maxIOV)] {
			v := unix.Iovec{Base: &p[0]}
			v.SetLen(len(p))
			s.iov = append(s.iov, v)
		}
		s.wait = wait
		err := s.raw.Write(s.write)
		clear(s.iov)
		if err != nil {
			return parts, err
		}
		if s.werr != 0 {
			return parts, s.werr
		}
		for n := s.sent; n > 0; {
			if n < len(parts[0]) {
				parts[0] = parts[0][n:]
				break
			}
			n -= len(parts[0])
			parts = parts[1:]
		}
	}
	return nil, nil
}

// finish sends our FIN.
func (s *socket) finish() {
	s.control(func(fd int) { _ = unix.Shutdown(fd, unix.SHUT_WR) }) // it may be gone already
}

func (s *socket) control(f func(fd int)) {
	_ = s.raw.Control(func(fd uintptr) { f(int(fd)) }) // fails on a closed one only
}

// close closes it; who waits is woken. True: it wasn't closed before.
func (s *socket) close() bool {
	if s.closed.Swap(true) {
		return false
	}
	s.file.Close()
	return true
}

// userTimeout bounds how long bytes may go without an acknowledgement.
func (s *socket) userTimeout(d time.Duration) {
	s.control(func(fd int) { sockopt.UserTimeout(fd, d) })
}
