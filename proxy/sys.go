// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls of a session's hot path. They are made without telling the Go
// scheduler: on a non-blocking socket they never sleep, and a scheduler
// handshake costs as much as the call.

func rawRecv(fd int32, b []byte, flags uintptr) (int, unix.Errno) {
	n, _, e := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), flags, 0, 0)
	if e != 0 {
		return -1, e
	}
	return int(n), 0
}

func rawSend(fd int32, b []byte) (int, unix.Errno) {
	n, _, e := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_NOSIGNAL, 0, 0)
	if e != 0 {
		return -1, e
	}
	return int(n), 0
}

func rawClose(fd int32) {
	unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)
}

func rawShutdownWrite(fd int32) unix.Errno {
	_, _, e := unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0)
	return e
}

func rawSetInt(fd int32, level, name, value int) unix.Errno {
	v := int32(value)
	_, _, e := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(unsafe.Pointer(&v)), 4, 0)
	return e
}

func rawGetInt(fd int32, level, name int) (int, unix.Errno) {
	var v int32
	n := uint32(4)
	_, _, e := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(unsafe.Pointer(&v)), uintptr(unsafe.Pointer(&n)), 0)
	return int(v), e
}

// rawSocketError reads and clears the socket's pending error.
func rawSocketError(fd int32) unix.Errno {
	var v int32
	n := uint32(4)
	_, _, e := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_ERROR, uintptr(unsafe.Pointer(&v)), uintptr(unsafe.Pointer(&n)), 0)
	if e != 0 {
		return e
	}
	return unix.Errno(v)
}

// lingerReset makes the coming close send RST and drop what is unsent.
func lingerReset(fd int32) {
	l := unix.Linger{Onoff: 1}
	unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_LINGER, uintptr(unsafe.Pointer(&l)), unsafe.Sizeof(l), 0)
}

// sockaddr is large enough for any address that a front or a backend can have.
type sockaddr struct {
	b [unix.SizeofSockaddrAny]byte
	n uint32
}

func (s *sockaddr) setIP(a netip.AddrPort) {
	clear(s.b[:28])
	if a.Addr().Is4() {
		binary.NativeEndian.PutUint16(s.b[0:], unix.AF_INET)
		binary.BigEndian.PutUint16(s.b[2:], a.Port())
		ip := a.Addr().As4()
		copy(s.b[4:8], ip[:])
		s.n = unix.SizeofSockaddrInet4
		return
	}
	binary.NativeEndian.PutUint16(s.b[0:], unix.AF_INET6)
	binary.BigEndian.PutUint16(s.b[2:], a.Port())
	ip := a.Addr().As16()
	copy(s.b[8:24], ip[:])
	s.n = unix.SizeofSockaddrInet6
}

func (s *sockaddr) setUnix(path string) {
	clear(s.b[:])
	binary.NativeEndian.PutUint16(s.b[0:], unix.AF_UNIX)
	copy(s.b[2:unix.SizeofSockaddrUnix-1], path)
	s.n = uint32(2 + len(path) + 1)
}

// addrPort is the IP address inside, v4-mapped ones as IPv4; the zero value
// for a unix socket.
func (s *sockaddr) addrPort() netip.AddrPort {
	if s.n < 2 {
		return netip.AddrPort{}
	}
	port := binary.BigEndian.Uint16(s.b[2:])
	switch binary.NativeEndian.Uint16(s.b[0:]) {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(s.b[4:8])), port)
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(s.b[8:24])).Unmap(), port)
	}
	return netip.AddrPort{}
}

func rawAccept(fd int32, sa *sockaddr) (int32, unix.Errno) {
	sa.n = uint32(len(sa.b))
	n, _, e := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(&sa.b)), uintptr(unsafe.Pointer(&sa.n)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if e != 0 {
		return -1, e
	}
	return int32(n), 0
}

func rawSocket(family int) (int32, unix.Errno) {
	n, _, e := unix.RawSyscall(unix.SYS_SOCKET, uintptr(family), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if e != 0 {
		return -1, e
	}
	return int32(n), 0
}

func rawConnect(fd int32, sa *sockaddr) unix.Errno {
	_, _, e := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa.b)), uintptr(sa.n))
	return e
}

// localAddr is the socket's own address; the zero value for a unix socket.
func localAddr(fd int32) netip.AddrPort {
	var sa sockaddr
	sa.n = uint32(len(sa.b))
	_, _, e := unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&sa.b)), uintptr(unsafe.Pointer(&sa.n)))
	if e != 0 {
		return netip.AddrPort{}
	}
	return sa.addrPort()
}

// remoteAddr is the address of the socket's peer; the zero value for a unix
// socket, and for one that isn't connected any more.
func remoteAddr(fd int32) netip.AddrPort {
	var sa sockaddr
	sa.n = uint32(len(sa.b))
	_, _, e := unix.RawSyscall(unix.SYS_GETPEERNAME, uintptr(fd), uintptr(unsafe.Pointer(&sa.b)), uintptr(unsafe.Pointer(&sa.n)))
	if e != 0 {
		return netip.AddrPort{}
	}
	return sa.addrPort()
}

func rawEpollCtl(epfd int, op int, fd int32, ev *unix.EpollEvent) unix.Errno {
	_, _, e := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(epfd), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(ev)), 0, 0)
	return e
}

// tcpInfo fills in what the kernel tells of a TCP connection; false for a
// socket that isn't one.
func tcpInfo(fd int32, ti *unix.TCPInfo) bool {
	n := uint32(unsafe.Sizeof(*ti))
	_, _, e := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_INFO, uintptr(unsafe.Pointer(ti)), uintptr(unsafe.Pointer(&n)), 0)
	return e == 0
}

// outq is SIOCOUTQ: bytes written to the socket that the peer has not
// acknowledged yet, a FIN counted as one.
func outq(fd int32) uint64 { return queueLength(fd, unix.SIOCOUTQ) }

// inq is SIOCINQ: bytes that have arrived and not been read.
func inq(fd int32) uint64 { return queueLength(fd, unix.SIOCINQ) }

func queueLength(fd int32, request uintptr) uint64 {
	var v int32
	_, _, e := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(&v)))
	if e != 0 || v < 0 {
		return 0
	}
	return uint64(v)
}

func rawBind(fd int32, sa *sockaddr) unix.Errno {
	_, _, e := unix.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&sa.b)), uintptr(sa.n))
	return e
}

func rawListen(fd int32, backlog int) unix.Errno {
	_, _, e := unix.RawSyscall(unix.SYS_LISTEN, uintptr(fd), uintptr(backlog), 0)
	return e
}
