// SPDX-License-Identifier: Apache-2.0

package proxy

import "golang.org/x/sys/unix"

// entered is how many bytes have entered the socket's send queue since its
// connection began, give or take a constant: acknowledged ones first, so that
// what is acknowledged in between is missed, and never counted twice.
func entered(fd int32) (uint64, bool) {
	var ti unix.TCPInfo
	if !tcpInfo(fd, &ti) {
		return 0, false
	}
	return ti.Bytes_acked + outq(fd), true
}

// position is how far a socket has got in both its streams, by TCP's own counts.
type position struct {
	entered uint64 // as entered says
	taken   uint64 // bytes taken out of its receive queue, whatever became of them
}

// positionLooks is how often exactly looks again before it gives up.
const positionLooks = 64

// exactly is where a socket stands while we write nothing to it and read nothing
// from it, without missing what is acknowledged or arrives between two looks. An
// entered that is too low would have drained say too early that all is there.
// False: not a TCP connection, or one that doesn't stand still.
func exactly(fd int32) (position, bool) {
	var before, after unix.TCPInfo
	if !tcpInfo(fd, &before) {
		return position{}, false
	}
	for range positionLooks {
		queued, unread := outq(fd), inq(fd)
		if !tcpInfo(fd, &after) {
			return position{}, false
		}
		if after.Bytes_acked == before.Bytes_acked && after.Bytes_received == before.Bytes_received {
			return position{after.Bytes_acked + queued, since(after.Bytes_received, unread)}, true
		}
		before = after
	}
	return position{}, false
}

// since is how far a count has come from its base: not at all if a look that
// missed something shows it before the base.
func since(count, base uint64) uint64 {
	if int64(count-base) < 0 {
		return 0
	}
	return count - base
}

// progress notes a look at what has entered the target; true if it shows more
// than any before. One that misses something takes nothing back.
func (d *direction) progress(entered uint64) bool {
	w := since(entered, d.base)
	if w <= d.written {
		return false
	}
	d.written = w
	return true
}

// sent is how many of the redirected bytes have entered the target, as far as
// is known, when own of what has was written by us.
func (d *direction) sent(redirected, own uint64) uint64 {
	return min(redirected, since(d.written, own))
}
