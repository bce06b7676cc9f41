// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// bindHint says what to do about the usual reasons.
func bindHint(err error) error {
	switch err {
	case unix.EADDRINUSE:
		return fmt.Errorf("address in use: another process, or another sluice, has it: %w", err)
	case unix.EACCES:
		return fmt.Errorf("a port below 1024 needs CAP_NET_BIND_SERVICE: %w", err)
	case unix.EADDRNOTAVAIL:
		return fmt.Errorf("this host has no such address: %w", err)
	case unix.EMFILE:
		return fmt.Errorf("out of descriptors, a port takes one on each event loop; raise LimitNOFILE: %w", err)
	}
	return err
}

// bindTCP makes a socket that is bound to addr and doesn't listen yet.
func bindTCP(addr netip.AddrPort, keepalive time.Duration, v6only, reuseport bool) (int32, error) {
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
		{unix.SOL_SOCKET, unix.SO_OOBINLINE, 1}, // urgent bytes stay in their place
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
	return fd, nil
}
