// SPDX-License-Identifier: Apache-2.0

package proxy

import "golang.org/x/sys/unix"

const (
	leastMSS = 88    // TCP_MIN_MSS in include/net/tcp.h
	mostMSS  = 32767 // MAX_TCP_WINDOW, what TCP_MAXSEG takes

	// timestampBytes is what timestamps take of a segment: the kernel's figure is
	// without it, what connections announce is with it.
	timestampBytes = 12

	// Options of a connection, TCPI_OPT_* in include/uapi/linux/tcp.h.
	hasTimestamps = 1
	hasECN        = 8
)

// agreedOn is what a connection's ends have agreed on: what the peer of this socket takes
// in a segment, as it announced it or as its path allows, and the options. ok false: it
// isn't connected any more.
func agreedOn(fd int32) (segment int, options uint8, ok bool) {
	n, errno := rawGetInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG)
	var ti unix.TCPInfo
	if errno != 0 || !tcpInfo(fd, &ti) {
		return 0, 0, false
	}
	if ti.Options&hasTimestamps != 0 {
		n += timestampBytes
	}
	return n, ti.Options, true
}

// fitSegments has the backend send no more in a segment than the client takes: a
// forwarded packet is never cut in two.
func fitSegments(fd int32, takes int) {
	if takes >= leastMSS && takes <= mostMSS {
		rawSetInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, takes)
	}
}

// learnSegments is told of a backend that takes less in a segment than the client
// sends: the next clients send no more.
func (f *Front) learnSegments(takes int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone || takes < leastMSS || takes > mostMSS || f.segments != 0 && takes >= f.segments {
		return
	}
	f.segments = takes
	for _, fd := range f.fds {
		rawSetInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, takes)
	}
}

// forgetSegments is called when a front has another pool, whose backends may take
// more.
func (f *Front) forgetSegments() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone || f.segments == 0 {
		return
	}
	f.segments = 0
	for _, fd := range f.fds {
		rawSetInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, 0)
	}
}
