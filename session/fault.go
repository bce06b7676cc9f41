// SPDX-License-Identifier: Apache-2.0

package session

import "golang.org/x/sys/unix"

// FaultOf sorts what socket(2), connect(2) and epoll_ctl(2) say of an attempt.
func FaultOf(e unix.Errno) Fault {
	switch e {
	case unix.EADDRNOTAVAIL, // every local port toward it is taken
		unix.EAFNOSUPPORT: // this kernel has no IPv6
		return LackToward
	case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.ENOSPC: // ENOSPC: max_user_watches
		return Lack
	}
	return BackendFault
}

// LackHint says what helps against a lack of ours.
func LackHint(e unix.Errno) string {
	switch e {
	case unix.EADDRNOTAVAIL:
		return "every local port toward it is in use: widen net.ipv4.ip_local_port_range, or add backend addresses"
	case unix.EAFNOSUPPORT:
		return "this host has no IPv6: remove the backend, or boot without ipv6.disable=1"
	case unix.ENOSPC:
		return "raise fs.epoll.max_user_watches"
	}
	return "raise LimitNOFILE, or free memory"
}
