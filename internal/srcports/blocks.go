// SPDX-License-Identifier: Apache-2.0

package srcports

import (
	"golang.org/x/sys/unix"
)

// blockSize is how many ports are claimed at once. The first of a block is the claim:
// a socket that has it, alone, for as long as the block is ours.
const blockSize = 256

// block is a claimed one.
type block struct {
	first uint16 // not dialled from
	ports int    // of it, the first included
	fds   []int
}

// claim claims the block that begins at first; false: somebody else has it, or any
// socket of the host has that port.
func claim(first uint16, ports int) (block, bool) {
	b := block{first: first, ports: ports}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		// Both families: the wildcard of IPv6 has IPv4's too.
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0)
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrInet6{Port: int(first)})
		}
		if err == nil {
			b.fds = append(b.fds, fd)
			return b, true
		}
		unix.Close(fd)
		if err != unix.EADDRNOTAVAIL { // IPv6 is off
			return block{}, false
		}
	}
	if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return block{}, false
	}
	if unix.Bind(fd, &unix.SockaddrInet4{Port: int(first)}) != nil {
		unix.Close(fd)
		return block{}, false
	}
	b.fds = append(b.fds, fd)
	return b, true
}

func (b *block) release() {
	for _, fd := range b.fds {
		unix.Close(fd)
	}
	b.fds = nil
}
