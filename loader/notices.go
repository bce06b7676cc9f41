// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// notices are the kernel's messages about the calling thread's network
// namespace: links, addresses, routes, rules, by group.
type notices struct {
	file *os.File
	buf  []byte
}

// errMissed says that notices came faster than they were read: what they
// told has to be asked for.
var errMissed = errors.New("notices of the kernel were missed")

// noticesOf subscribes to groups of NETLINK_ROUTE (unix.RTNLGRP_LINK ...). The
// kernel skips none that it knows; one that it doesn't is an error.
func noticesOf(groups ...int) (_ *notices, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("a netlink socket for notices of the kernel: %w", err)
	}
	n := &notices{file: os.NewFile(uintptr(fd), "netlink notices"), buf: make([]byte, 64<<10)}
	defer func() {
		if err != nil {
			_ = n.close()
		}
	}()
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("binding a netlink socket: %w", err)
	}
	for _, g := range groups {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g); err != nil {
			return nil, fmt.Errorf("subscribing to netlink group %d: %w", g, err)
		}
	}
	return n, nil
}

// close also ends a read that waits; its error is os.ErrClosed.
func (n *notices) close() error {
	if n == nil {
		return nil
	}
	return n.file.Close()
}

// read waits for the next notices. Only one caller at a time.
func (n *notices) read() (msgs []syscall.NetlinkMessage, err error) {
	err = n.receive(func(fd int) (done bool) {
		var again bool
		msgs, again, err = n.one(fd)
		return !again
	}, &err)
	return msgs, err
}

// discard takes what is there, without waiting or looking at it.
func (n *notices) discard() error {
	var err error
	return n.receive(func(fd int) bool {
		for again := false; !again; {
			if _, again, err = n.one(fd); err != nil && !errors.Is(err, errMissed) {
				return true
			}
			err = nil
		}
		return true
	}, &err)
}

// receive runs f when the socket is readable until it is done. inner is f's error.
func (n *notices) receive(f func(fd int) bool, inner *error) error {
	conn, err := n.file.SyscallConn()
	if err != nil {
		return err
	}
	if err := conn.Read(func(fd uintptr) bool { return f(int(fd)) }); err != nil {
		return err
	}
	return *inner
}

// one receives a datagram. again: there is none now.
func (n *notices) one(fd int) (msgs []syscall.NetlinkMessage, again bool, err error) {
	size, from, err := unix.Recvfrom(fd, n.buf, unix.MSG_DONTWAIT)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return nil, true, nil
	case errors.Is(err, unix.EINTR):
		return nil, false, nil
	case errors.Is(err, unix.ENOBUFS):
		return nil, false, errMissed
	case err != nil:
		return nil, false, fmt.Errorf("reading notices of the kernel: %w", err)
	}
	if nl, ok := from.(*unix.SockaddrNetlink); !ok || nl.Pid != 0 {
		return nil, false, nil // not from the kernel
	}
	if msgs, err = syscall.ParseNetlinkMessage(n.buf[:size]); err != nil {
		return nil, false, errMissed
	}
	return msgs, false, nil
}
