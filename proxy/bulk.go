// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"golang.org/x/sys/unix"

	"sluice/accesslog"
)

const (
	// bulkMean is the mean read from which a direction is moved by splice(2):
	// pages change hands instead of being copied twice.
	bulkMean = 24 << 10
	// bulkChunk is how much one move takes, and so the most that a session whose
	// target takes nothing may keep a direction.
	bulkChunk = 512 << 10
	// pipeSize is what a loop's pipe is asked to hold. The kernel counts it in
	// slots of a page, and an aggregated packet takes many.
	pipeSize = 1 << 20
)

// pipe is a loop's way through the kernel for bulk. It is empty between two
// moves, so that one serves all sessions: what a target doesn't take at once
// is copied out and held, as with any other read.
type pipe struct{ r, w int32 }

func newPipe() (pipe, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		return pipe{-1, -1}, err
	}
	// Refused without CAP_SYS_RESOURCE once the user has many: 64 KiB then.
	_, _ = unix.FcntlInt(uintptr(p[1]), unix.F_SETPIPE_SZ, pipeSize)
	return pipe{int32(p[0]), int32(p[1])}, nil
}

func (p pipe) close() {
	if p.r >= 0 {
		rawClose(p.r)
		rawClose(p.w)
	}
}

// renewPipe puts a new pipe in the place of one of which nobody knows what it
// still holds: it would be the next session's.
func (l *loop) renewPipe() {
	l.pipe.close()
	var err error
	if l.pipe, err = newPipe(); err != nil {
		l.e.log.Warn().Err(err).Msg("no pipe for bulk: it is copied from now on")
	}
}

func rawSplice(from, to int32, n int) (int, unix.Errno) {
	got, _, e := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n), unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
	if e != 0 {
		return -1, e
	}
	return int(got), 0
}

// pipeLack says whether splice(2) may have failed for the pipe's sake, the
// socket being as it was.
func pipeLack(errno unix.Errno) bool {
	switch errno {
	case unix.ENOMEM, unix.ENOBUFS, unix.EINVAL:
		return true
	}
	return false
}

// bulky says whether the session's bytes are worth splice(2). A session that
// was ever in a map isn't: the kernel parks bytes there that splice(2) on the
// socket can't see.
func (s *pair) bulky() bool {
	return s.mean >= bulkMean && s.mover == nil && s.loop.pipe.r >= 0 && s.Client.IsValid() && s.Backend.Addr.Unix == ""
}

// moveBulk moves up to n bytes, a bulkChunk at most, from src to dst without bringing it here. What
// it returns is as from recv(2) on src.
func (s *pair) moveBulk(src, dst *end, n int) (int, unix.Errno) {
	p := s.loop.pipe
	got, errno := rawSplice(src.fd, p.w, n)
	if got <= 0 {
		return got, errno
	}
	s.gotBytes(src, got)
	if !dst.eager {
		dst.eager = true
		rawSetInt(dst.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	for left := got; left > 0; {
		n, errno := 0, unix.EPIPE
		if !dst.broken {
			n, errno = rawSplice(p.r, dst.fd, left)
		}
		if n > 0 {
			left -= n
			dst.out += uint64(n)
			continue
		}
		b := s.loop.getBuffer(left)
		if readPipe(p.r, b[:left]) < left {
			s.loop.putBuffer(b)
			s.loop.renewPipe()
			s.cut(accesslog.Internal)
			return got, 0
		}
		if s.mayRetry(dst, errno) {
			s.hold(dst, b[:left])
		} else {
			s.loop.putBuffer(b)
			s.deadEnd(dst, errno)
		}
		break
	}
	s.mindWindow(src, got)
	return got, 0
}

// readPipe empties the pipe into b, which is as long as what the pipe holds.
func readPipe(fd int32, b []byte) int {
	got := 0
	for got < len(b) {
		n, err := unix.Read(int(fd), b[got:])
		if err == unix.EINTR {
			continue
		}
		if n <= 0 {
			break
		}
		got += n
	}
	return got
}
