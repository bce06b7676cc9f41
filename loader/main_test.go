// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"net/netip"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// inNamespace runs f on a thread in a fresh network namespace with loopback,
// which ends with it. Sockets made by f itself are in the namespace; what the
// net package does on other threads isn't, so f uses dial and listen below.
func inNamespace(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread is thrown away
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("a network namespace of the test's own: %v: run as root", err)
			return
		}
		if err := loopbackUp(); err != nil {
			t.Error(err)
			return
		}
		f(t)
	}()
	<-done
}

func must[T any](t *testing.T, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// sockaddr is what the raw calls want, for a socket of the family of like.
func sockaddr(a netip.AddrPort) (family int, sa unix.Sockaddr) {
	if a.Addr().Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func fromSockaddr(sa unix.Sockaddr) netip.AddrPort {
	switch s := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(s.Addr), uint16(s.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(s.Addr).Unmap(), uint16(s.Port))
	}
	return netip.AddrPort{}
}

// listen makes a blocking listening socket; port 0 is chosen.
func listen(t *testing.T, a netip.AddrPort) (fd int, at netip.AddrPort) {
	t.Helper()
	family, sa := sockaddr(a)
	fd = must1(t, func() (int, error) { return unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0) })
	t.Cleanup(func() { unix.Close(fd) })
	must(t, 0, unix.Bind(fd, sa))
	must(t, 0, unix.Listen(fd, 128))
	got := must1(t, func() (unix.Sockaddr, error) { return unix.Getsockname(fd) })
	return fd, netip.AddrPortFrom(a.Addr(), fromSockaddr(got).Port())
}

func must1[T any](t *testing.T, f func() (T, error)) T {
	t.Helper()
	v, err := f()
	return must(t, v, err)
}

// dial connects from local, port 0 for any.
func dial(t *testing.T, to netip.AddrPort, local uint16) int {
	t.Helper()
	family, sa := sockaddr(to)
	fd := must1(t, func() (int, error) { return unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0) })
	if local != 0 {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		_, from := sockaddr(netip.AddrPortFrom(to.Addr(), local))
		must(t, 0, unix.Bind(fd, from))
	}
	must(t, 0, unix.Connect(fd, sa))
	return fd
}

// accept returns the socket and both its ends.
func accept(t *testing.T, l int) (fd int, client, server netip.AddrPort) {
	t.Helper()
	fd, sa, err := unix.Accept(l)
	must(t, 0, err)
	local := must1(t, func() (unix.Sockaddr, error) { return unix.Getsockname(fd) })
	return fd, fromSockaddr(sa), fromSockaddr(local)
}

func openFDs(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

// writeSysctl sets one of the thread's network namespace.
func writeSysctl(name, value string) error {
	return os.WriteFile("/proc/sys/"+name, []byte(value), 0)
}
