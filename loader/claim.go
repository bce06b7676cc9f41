// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// claim tells other instances in this network namespace that a program is of
// a living one, by an abstract unix address that has the program's id in it.
// The kernel drops it with the process, however that ends, and a look at it
// takes no privilege, as opening a program by its id does (CAP_SYS_ADMIN).
// Ids aren't used again while a program is attached. Whoever takes such an
// address without being an instance gains that a dead stub, which passes
// everything, is left where it is, or that his program isn't called foreign.
type claim struct{ fd int }

func claimName(id ebpf.ProgramID) *unix.SockaddrUnix {
	return &unix.SockaddrUnix{Name: fmt.Sprintf("@sluice-forward-%d", id)}
}

// claimProgram holds until close.
func claimProgram(id ebpf.ProgramID) (_ *claim, err error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("a socket that claims program %d: %w", id, err)
	}
	c := &claim{fd}
	// One that is taken is as good: others find the program claimed.
	if err := unix.Bind(fd, claimName(id)); err != nil && !errors.Is(err, unix.EADDRINUSE) {
		_ = c.close()
		return nil, fmt.Errorf("claiming program %d: %w", id, err)
	}
	if err := unix.Shutdown(fd, unix.SHUT_RD); err != nil { // nobody's datagrams wait in it
		_ = c.close()
		return nil, fmt.Errorf("claiming program %d: %w", id, err)
	}
	return c, nil
}

func (c *claim) close() error {
	if c == nil || c.fd < 0 {
		return nil
	}
	fd := c.fd
	c.fd = -1
	return unix.Close(fd)
}

// claimed says whether a living instance has the program. Where that can't be
// told it is taken for living: nothing of another's is ever removed by mistake.
func claimed(id ebpf.ProgramID) bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	return !errors.Is(unix.Connect(fd, claimName(id)), unix.ECONNREFUSED)
}
