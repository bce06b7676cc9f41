// SPDX-License-Identifier: Apache-2.0

// Package sockopt sets options of TCP sockets. None of its functions fails on a
// socket that is one.
package sockopt

import (
	"time"

	"golang.org/x/sys/unix"
)

// Probes is how many probes in vain end a connection.
const Probes = 3

// Keepalive turns TCP keepalive on, with the first probe after d without a
// segment of the peer's and then one each tenth of it, 1 s at least; 0 turns it
// off. The kernel takes whole seconds: both are rounded up.
func Keepalive(fd int, d time.Duration) {
	if d <= 0 {
		set(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0)
		return
	}
	secs := func(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }
	set(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	set(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, secs(d))
	set(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, secs(d/10))
	set(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, Probes)
}

// UserTimeout bounds how long the socket's bytes may go without an
// acknowledgement; 0: as long as the kernel tries.
func UserTimeout(fd int, d time.Duration) {
	set(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int((d+time.Millisecond-1)/time.Millisecond))
}

// NoDelay has small writes sent at once.
func NoDelay(fd int) { set(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) }

func set(fd, level, name, value int) { _ = unix.SetsockoptInt(fd, level, name, value) }
