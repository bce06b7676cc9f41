// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sluice/config"
	"sluice/internal/unixsock"
	"sluice/session"
)

// Front is one listen address: a listening socket for each loop, all in one
// SO_REUSEPORT group (a unix socket is one, shared by the loops).
//
// Its methods but Done and Addr are for one goroutine.
type Front struct {
	e         *Engine
	addr      config.Address
	fixed     netip.AddrPort // the local end of its connections; zero if it varies
	file      *unixsock.File // of a unix socket
	fds       []int32
	marked    *offloading // where f's address is marked; nil: nowhere
	ports     portUse
	listens   bool
	backlog   int
	keepalive time.Duration // what accepted sockets inherit
	set       session.Source
	heirs     atomic.Pointer[[]*Front] // see Succeed
	segments  int                      // what clients are told to send in a segment, at most; 0: what their path takes; under mu

	acc  []*acceptor
	done chan struct{}
	going
}

// Bind binds addr, and listens unless it overlaps an old address of our own:
// its first socket is bound and listening without SO_REUSEPORT, so that a port
// has one owner, and a second balancer gets EADDRINUSE. With overlaps that step
// is left out, and so is listening: a narrower address takes clients from the
// wider one from Listen on. Nothing is accepted before Serve.
// keepalive (0: off) and TCP_NODELAY are inherited by accepted sockets.
// Close, and Done, give everything back.
func (e *Engine) Bind(addr config.Address, backlog int, keepalive time.Duration, overlaps bool) (*Front, error) {
	f := &Front{e: e, addr: addr, backlog: backlog, keepalive: keepalive, done: make(chan struct{})}
	var err error
	switch {
	case addr.Path != "":
		err = f.bindUnix(addr.Path, backlog)
	case addr.Any || addr.Addr.IsValid():
		err = f.bindTCP(overlaps)
	default:
		err = errNoFront
	}
	if err != nil {
		f.closeSockets()
		return nil, err
	}
	f.listens = !overlaps || addr.Path != ""
	return f, nil
}

// Listen has a front listen that doesn't yet.
func (f *Front) Listen() error {
	if f.listens {
		return nil
	}
	for _, fd := range f.fds {
		if e := rawListen(fd, f.backlog); e != 0 {
			return fmt.Errorf("listen %s: %w", localAddr(fd), bindHint(e))
		}
	}
	f.listens = true
	return nil
}

// Addr is the address the front is bound to, with the port the kernel chose if
// it was bound to port 0.
func (f *Front) Addr() netip.AddrPort {
	if len(f.fds) == 0 || f.file != nil {
		return netip.AddrPort{}
	}
	return localAddr(f.fds[0])
}

func (f *Front) bindTCP(overlaps bool) error {
	ip := f.addr.Addr
	port := f.addr.Port
	v6only := true
	if f.addr.Any {
		ip, v6only = netip.IPv6Unspecified(), false
	}
	for i := range f.e.loops {
		join := overlaps || i > 0
		fd, err := bindTCP(netip.AddrPortFrom(ip, port), f.keepalive, v6only, join)
		if err != nil && i == 0 && f.addr.Any && (err == unix.EAFNOSUPPORT || err == unix.EADDRNOTAVAIL) {
			// IPv6 is off: the wildcard is IPv4's.
			ip = netip.IPv4Unspecified()
			fd, err = bindTCP(netip.AddrPortFrom(ip, port), f.keepalive, v6only, join)
		}
		if err != nil {
			return fmt.Errorf("listen %s: %w", netip.AddrPortFrom(ip, port), bindHint(err))
		}
		f.fds = append(f.fds, fd)
		if i == 0 {
			f.mark(true) // who serves it isn't known yet
		}
		if !overlaps {
			if e := rawListen(fd, f.backlog); e != 0 {
				return fmt.Errorf("listen %s: %w", netip.AddrPortFrom(ip, port), bindHint(e))
			}
		}
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

func (f *Front) bindUnix(path string, backlog int) error {
	if err := unixsock.RemoveStale(path); err != nil {
		return fmt.Errorf("listen unix:%s: %w", path, err)
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
	file, err := unixsock.Bound(path)
	if err != nil {
		return fmt.Errorf("listen unix:%s: %w", path, err)
	}
	f.file = file
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

// Serve starts accepting with these settings, or has later sessions go by
// them. A front that is being closed and held stays.
func (f *Front) Serve(s *session.Settings) {
	f.mark(s.OffloadAllowed)
	before := f.set.Swap(s)
	if before == nil {
		f.begin()
		return
	}
	if before.Pool != s.Pool {
		f.forgetSegments()
		if o := f.e.offload.Load(); o != nil && f.addr.Path == "" {
			f.learnPlain(o, false)
		}
	}
	if b := s.Config.Backlog; b != f.backlog && b > 0 {
		for _, fd := range f.fds {
			rawListen(fd, b)
		}
		f.backlog = b
	}
	f.stay()
}

// begin has each loop accept on its socket.
func (f *Front) begin() {
	for i, l := range f.e.loops {
		a := &acceptor{f: f, fd: f.fds[i], handle: -1}
		f.acc = append(f.acc, a)
		l.post(func() { a.start(l) })
	}
}

// Succeed says, when f is about to be closed, which fronts have taken over
// addresses that f was a wildcard for: a connection to one of those that is
// still accepted on f's sockets goes by that front's settings. To be called
// within the update that gives them theirs.
func (f *Front) Succeed(heirs []*Front) {
	if len(heirs) > 0 {
		f.heirs.Store(&heirs)
	}
}

// serves is the front whose settings are those of a connection that was
// accepted on f.
func (f *Front) serves(fd int32) *Front {
	if f.heirs.Load() == nil {
		return f
	}
	return f.servesAddr(localAddr(fd))
}

// servesAddr is serves by the connection's local end.
func (f *Front) servesAddr(local netip.AddrPort) *Front {
	for {
		heirs := f.heirs.Load()
		if heirs == nil {
			return f
		}
		next := f
		for _, h := range *heirs {
			if h.takes(local) {
				next = h
			}
		}
		if next == f {
			return f
		}
		f = next
	}
}

// takes says whether a connection with this local end is to f's address.
func (f *Front) takes(local netip.AddrPort) bool {
	switch {
	case f.addr.Any:
		return true
	case f.addr.Wildcard():
		return f.addr.Addr.Is4() == local.Addr().Is4()
	}
	return f.addr.Addr == local.Addr()
}

// Done is closed when the last socket is.
func (f *Front) Done() <-chan struct{} { return f.done }

func (f *Front) closeSockets() {
	if f.marked != nil {
		f.mark(false)
	}
	for _, fd := range f.fds {
		rawClose(fd)
	}
	f.fds = nil
	f.unlink()
}

// unlink removes a unix socket's file. That it can't be is no reason not to
// close: a stale one makes room for the next.
func (f *Front) unlink() { _ = f.file.Unlink() }
