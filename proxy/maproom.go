// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"time"

	"golang.org/x/sys/unix"
)

const (
	// roomSlack is what a send buffer has beyond the mark: the buffer that went
	// over it, and what the kernel needs to keep them.
	roomSlack = 128 << 10
	// stuckQueue is how long redirected bytes may wait without any of them entering
	// their target before the kernel is asked to look again.
	stuckQueue = int64(100 * time.Millisecond)
	// deadQueue is how long they may wait while their target's send queue is empty.
	deadQueue = int64(5 * time.Second)
)

// makeRoom has everything that the program may have redirected to a socket fit
// into its send buffer. What doesn't waits in the socket's queue in the map, and
// there the bytes that the socket has passed to userspace wait behind it: they
// are charged to nobody meanwhile, so that its peer goes on sending without end,
// and what is redirected later waits behind them. So a socket whose peer doesn't
// read would hold up what that peer sends.
//
// The limit on unsent bytes lets all that may be redirected in, whatever the host's
// tcp_notsent_lowat is, and keeps our own writes from filling the larger buffer.
// Setting it also has the kernel's worker look at the socket's queue again: it runs
// sk_write_space (do_tcp_setsockopt), which is the map's (sk_psock_write_space).
func makeRoom(fd int32, mark uint32) {
	raiseSendBuffer(fd, 2*(int(mark)+roomSlack))
	rawSetInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, int(mark)+roomSlack)
}

// raiseSendBuffer makes a socket's send buffer at least so large, in the kernel's
// own measure, and leaves the kernel to tune it from there on (SO_BUF_LOCK, 5.14).
func raiseSendBuffer(fd int32, bytes int) {
	now, errno := rawGetInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	if errno != 0 || now >= bytes {
		return
	}
	locked, errno := rawGetInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK)
	if rawSetInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, bytes/2) != 0 { // the kernel doubles it
		rawSetInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, bytes/2)
	}
	if errno == 0 {
		rawSetInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK, locked)
	}
}

// stalled deals with redirected bytes of a direction of which none has entered the
// target for a while. True if the session has ended: the target's send queue is
// empty and they still don't come, so the kernel's worker has stopped, for
// whatever reason, and nobody else would notice.
//
// The target may lack room that it was given: the kernel lowers a send buffer to
// tcp_wmem's largest when it tunes one beyond it (tcp_sndbuf_expand), and any when
// memory is short (sk_stream_moderate_sndbuf, both as of 6.18). With a peer that
// reads nothing it would stay so.
func (m *splicer) stalled(d *direction) bool {
	since := d.movedAt
	if !d.phase.takenOver() {
		since = max(since, int64(d.shared.LastActive())) // nothing had to enter before
	}
	switch idle := m.s.loop.now - since; {
	case idle < stuckQueue:
	case idle >= deadQueue && outq(d.dst.fd) == 0:
		m.lose()
		return true
	default:
		makeRoom(d.dst.fd, d.shared.Mark())
	}
	return false
}
