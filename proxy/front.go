// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sluice/config"
)

// Front is one listen address: a listening socket for each loop, all in one
// SO_REUSEPORT group (a unix socket is one, shared by the loops).
type Front struct {
	e         *Engine
	addr      config.Address
	fixed     netip.AddrPort // the local end of its connections; zero if it varies
	unixPath  string
	fds       []int32
	backlog   int
	keepalive time.Duration // what accepted sockets inherit
	set       atomic.Pointer[Settings]

	once    sync.Once
	pending atomic.Int32 // loops that still hold a socket
	done    chan struct{}
	acc     []*acceptor
}

// Bind binds and listens on addr; nothing is accepted before Serve. The first
// socket is bound and listening without SO_REUSEPORT, so that a port has one
// owner: a second balancer gets EADDRINUSE. With sharesWithOwn that step is
// left out, for an address that overlaps an old one of our own.
// keepalive (0: off) and TCP_NODELAY are inherited by accepted sockets.
func (e *Engine) Bind(addr config.Address, backlog int, keepalive time.Duration, sharesWithOwn bool) (*Front, error) {
	f := &Front{e: e, addr: addr, backlog: backlog, keepalive: keepalive, done: make(chan struct{})}
	var err error
	switch {
	case addr.Path != "":
		err = f.bindUnix(addr.Path, backlog)
	case addr.Any || addr.Addr.IsValid():
		err = f.bindTCP(backlog, keepalive, sharesWithOwn)
	default:
		err = errNoFront
	}
	if err != nil {
		f.closeSockets()
		return nil, err
	}
	return f, nil
}

// Addr is the address the front is bound to, with the port the kernel chose if
// it was bound to port 0.
func (f *Front) Addr() netip.AddrPort {
	if len(f.fds) == 0 || f.unixPath != "" {
		return netip.AddrPort{}
	}
	return localAddr(f.fds[0])
}

func (f *Front) bindTCP(backlog int, keepalive time.Duration, share bool) error {
	ip := f.addr.Addr
	port := f.addr.Port
	v6only := true
	if f.addr.Any {
		ip, v6only = netip.IPv6Unspecified(), false
	}
	for i := range f.e.loops {
		join := share || i > 0
		fd, err := listenTCP(netip.AddrPortFrom(ip, port), backlog, keepalive, v6only, join)
		if err != nil && i == 0 && f.addr.Any && (err == unix.EAFNOSUPPORT || err == unix.EADDRNOTAVAIL) {
			// IPv6 is off: the wildcard is IPv4's.
			ip = netip.IPv4Unspecified()
			fd, err = listenTCP(netip.AddrPortFrom(ip, port), backlog, keepalive, v6only, join)
		}
		if err != nil {
			return fmt.Errorf("listen %s: %w", netip.AddrPortFrom(ip, port), bindHint(err))
		}
		f.fds = append(f.fds, fd)
		if i == 0 {
			// The group is closed to everybody until it is ours.
			if e := rawSetInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); e != 0 {
				return fmt.Errorf("listen %s: SO_REUSEPORT: %w", netip.AddrPortFrom(ip, port), e)
			}
			port = localAddr(fd).Port()
		}
	}
	if !ip.IsUnspecified() {
		f.fixed = netip.AddrPortFrom(ip, port)
	}
	return nil
}

// bindHint says what to do about the usual reasons.
func bindHint(err error) error {
	switch err {
	case unix.EADDRINUSE:
		return fmt.Errorf("address in use: another process, or another sluice, has it: %w", err)
	case unix.EACCES:
		return fmt.Errorf("a port below 1024 needs CAP_NET_BIND_SERVICE: %w", err)
	case unix.EADDRNOTAVAIL:
		return fmt.Errorf("this host has no such address: %w", err)
	}
	return err
}

func listenTCP(addr netip.AddrPort, backlog int, keepalive time.Duration, v6only, reuseport bool) (int32, error) {
	family := unix.AF_INET
	if addr.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, e := rawSocket(family) // IPPROTO_TCP, never MPTCP: that can't enter a sockmap
	if e != 0 {
		return -1, e
	}
	fail := func(e unix.Errno) (int32, error) {
		rawClose(fd)
		return -1, e
	}
	type option struct{ level, name, value int }
	opts := []option{
		{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1},
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
	}
	if family == unix.AF_INET6 {
		only := 0
		if v6only {
			only = 1
		}
		opts = append(opts, option{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only})
	}
	if reuseport {
		opts = append(opts, option{unix.SOL_SOCKET, unix.SO_REUSEPORT, 1})
	}
	for _, o := range opts {
		if e := rawSetInt(fd, o.level, o.name, o.value); e != 0 {
			return fail(e)
		}
	}
	if keepalive > 0 {
		setKeepalive(fd, keepalive)
	}
	var sa sockaddr
	sa.setIP(addr)
	if e := rawBind(fd, &sa); e != 0 {
		return fail(e)
	}
	if e := rawListen(fd, backlog); e != 0 {
		return fail(e)
	}
	return fd, nil
}

// setKeepalive turns TCP keepalive on with d as idle time and as interval.
func setKeepalive(fd int32, d time.Duration) {
	if d <= 0 {
		rawSetInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0)
		return
	}
	secs := int((d + time.Second - 1) / time.Second)
	rawSetInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	rawSetInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, secs)
	rawSetInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, secs)
}

func (f *Front) bindUnix(path string, backlog int) error {
	if err := removeStale(path); err != nil {
		return err
	}
	fd, e := rawSocket(unix.AF_UNIX)
	if e != 0 {
		return fmt.Errorf("listen unix:%s: %w", path, e)
	}
	f.fds = append(f.fds, fd)
	var sa sockaddr
	sa.setUnix(path)
	if e := rawBind(fd, &sa); e != 0 {
		return fmt.Errorf("listen unix:%s: %w", path, e)
	}
	f.unixPath = path
	if err := os.Chmod(path, 0o666); err != nil {
		return fmt.Errorf("listen unix:%s: %w", path, err)
	}
	if e := rawListen(fd, backlog); e != 0 {
		return fmt.Errorf("listen unix:%s: %w", path, e)
	}
	for range f.e.loops[1:] {
		d, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("listen unix:%s: %w", path, err)
		}
		f.fds = append(f.fds, int32(d))
	}
	return nil
}

// removeStale unlinks a socket that nobody listens on any more. What isn't a
// socket, or is alive, stays and is an error.
func removeStale(path string) error {
	st, err := os.Lstat(path)
	if err != nil {
		return nil // absent, or bind will say what is wrong
	}
	if st.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("listen unix:%s: the file exists and is no socket; remove it or choose another path", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return fmt.Errorf("listen unix:%s: address in use: somebody listens there: %w", path, syscall.EADDRINUSE)
	}
	if isRefused(err) {
		return os.Remove(path)
	}
	return fmt.Errorf("listen unix:%s: address in use: %w", path, err)
}

// Serve starts accepting with these settings, or has later sessions go by
// them. Not to be called at once with itself or with Close.
func (f *Front) Serve(s *Settings) {
	if f.set.Swap(s) != nil {
		if b := s.Config.Backlog; b != f.backlog && b > 0 {
			for _, fd := range f.fds {
				rawListen(fd, b)
			}
			f.backlog = b
		}
		return
	}
	f.pending.Store(int32(len(f.fds)))
	for i, l := range f.e.loops {
		a := &acceptor{f: f, fd: f.fds[i], handle: -1}
		f.acc = append(f.acc, a)
		l.post(func() { a.start(l) })
	}
}

// Close has each loop serve its accept queue once more and then close its
// socket. It returns at once; Done tells.
func (f *Front) Close() {
	f.once.Do(func() {
		if f.set.Load() == nil {
			f.closeSockets()
			close(f.done)
			return
		}
		f.unlink()
		for i, l := range f.e.loops {
			a := f.acc[i]
			l.post(func() {
				a.stop(l, func() {
					if f.pending.Add(-1) == 0 {
						close(f.done)
					}
				})
			})
		}
	})
}

// Done is closed when the last socket is.
func (f *Front) Done() <-chan struct{} { return f.done }

func (f *Front) closeSockets() {
	for _, fd := range f.fds {
		rawClose(fd)
	}
	f.fds = nil
	f.unlink()
}

func (f *Front) unlink() {
	if f.unixPath != "" {
		os.Remove(f.unixPath)
		f.unixPath = ""
	}
}
