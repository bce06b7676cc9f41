// SPDX-License-Identifier: Apache-2.0

package nstest

import (
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Half is a TCP connection whose client doesn't hear the server's answer.
type Half struct {
	t  testing.TB
	fd int
}

// HalfOpen sends a SYN to addr from a socket that is deaf until Hear.
func HalfOpen(t testing.TB, addr netip.AddrPort) *Half {
	t.Helper()
	family := unix.AF_INET
	var to unix.Sockaddr = &unix.SockaddrInet4{Port: int(addr.Port())}
	if addr.Addr().Is4() {
		to.(*unix.SockaddrInet4).Addr = addr.Addr().As4()
	} else {
		family, to = unix.AF_INET6, &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	h := &Half{t: t, fd: fd}
	t.Cleanup(func() {
		if h.fd >= 0 {
			unix.Close(h.fd)
		}
	})
	deaf := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	prog := unix.SockFprog{Len: 1, Filter: &deaf[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, to); err != unix.EINPROGRESS {
		t.Fatalf("connecting to %s: %v", addr, err)
	}
	return h
}

// Hear has the handshake go on: the server answers anew a second after the
// first time.
func (h *Half) Hear() {
	h.t.Helper()
	// ENOENT: it has heard already.
	if err := unix.SetsockoptInt(h.fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0); err != nil && err != unix.ENOENT {
		h.t.Fatal(err)
	}
}

// Conn hears, waits for the end of the handshake, and returns the connection,
// which is the caller's to close.
func (h *Half) Conn() (net.Conn, error) {
	h.t.Helper()
	h.Hear()
	for {
		p := []unix.PollFd{{Fd: int32(h.fd), Events: unix.POLLOUT}}
		if _, err := unix.Poll(p, 10_000); err == nil {
			break
		} else if err != unix.EINTR {
			return nil, err
		}
	}
	e, err := unix.GetsockoptInt(h.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return nil, err
	}
	if e != 0 {
		return nil, unix.Errno(e)
	}
	f := os.NewFile(uintptr(h.fd), "half-open connection")
	h.fd = -1
	defer f.Close()
	return net.FileConn(f)
}

// SYNsSentAgain is how many SYNs and SYN-ACKs this network namespace has sent
// again so far.
func SYNsSentAgain(t testing.TB) int {
	t.Helper()
	b, err := os.ReadFile("/proc/thread-self/net/netstat")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] != "TcpExt:" {
			continue
		}
		if names == nil {
			names = f
			continue
		}
		for i, name := range names {
			if name == "TCPSynRetrans" {
				n, err := strconv.Atoi(f[i])
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
		}
	}
	t.Fatal("no TCPSynRetrans in netstat")
	return 0
}
