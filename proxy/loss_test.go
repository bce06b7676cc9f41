// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// lose has a connection lose packets at random, as its socket sees them come.
func lose(t *testing.T, c *net.TCPConn, percent int) {
	raw, err := c.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { loseOn(t, int(fd), percent) })
	}
	if err != nil {
		t.Error(err)
	}
}

// loseOn is lose for a descriptor: a filter that keeps a packet by a throw of
// the kernel's dice, before TCP sees it (tcp_filter in net/ipv4/tcp_ipv4.c).
func loseOn(t *testing.T, fd, percent int) {
	const random = 0xfffff000 + 56 // SKF_AD_OFF + SKF_AD_RANDOM
	code := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: random},
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: uint32(1 << 32 / 100 * percent), Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
		t.Error(err)
	}
}

// TestTortureWithLoss: what is lost is sent again, and Linux joins small
// segments then: bytes come twice, in front of new ones, and go on once. A
// lost reset would leave its session to the idle timeout: none here.
func TestTortureWithLoss(t *testing.T) {
	sessions := 300
	if testing.Short() {
		sessions = 100
	}
	datapaths(t, func(t *testing.T, path string) {
		t.Parallel()
		o := ordeal{sessions: sessions, most: 256 << 10, endings: clientResets, loss: 5}
		if ground(t) != nil {
			o.loss = 2 // on four hops, not two
		}
		o.run(t, path)
	})
}
