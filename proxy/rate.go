// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"math"
	"math/bits"
	"time"

	"golang.org/x/sys/unix"

	"sluice/config"
)

const (
	second = uint64(time.Second)
	// paceWaits is into how many waits a second of a slow rate is divided.
	paceWaits = 10
	// paceMost is how much a fast one lets come together before it reads again:
	// what a socket's receive buffer holds, so that the wait doesn't cost rate.
	paceMost = 256 << 10
	// pausedEvents are those of a socket that isn't to be read for a while: no
	// EPOLLPRI, for arriving bytes wake its waiters too (sock_def_readable).
	pausedEvents = unix.EPOLLRDHUP | uint32(unix.EPOLLET&0xffffffff)
)

// pace bounds how fast a session's bytes are read: a bucket a direction that
// fills by its rate up to a second's worth. Index 0 is from the client.
type pace struct {
	rate  [2]uint64 // bytes a second; 0: no limit
	empty [2]int64  // when the bucket would have been empty, had nothing been read since
	until [2]int64  // when a paused direction is read again; 0: it isn't paused
}

// newPace is the pace that c asks for; nil: none.
func newPace(c *config.Listener) *pace {
	if c.UploadRate <= 0 && c.DownloadRate <= 0 {
		return nil
	}
	return &pace{rate: [2]uint64{uint64(c.UploadRate), uint64(c.DownloadRate)}}
}

// room is how many bytes direction i may read at now.
func (p *pace) room(i int, now int64) int {
	if p.rate[i] == 0 {
		return math.MaxInt
	}
	p.empty[i] = max(p.empty[i], now-int64(second))
	return int(scale(uint64(max(0, now-p.empty[i])), p.rate[i], second))
}

// take notes that n bytes, room at most, were read.
func (p *pace) take(i, n int) {
	if rate := p.rate[i]; rate != 0 {
		p.empty[i] += int64(scale(uint64(n), second, rate)) + 1 // never in the reader's favour
	}
}

// enough is when a read of direction i is worth it again.
func (p *pace) enough(i int) int64 {
	n := min(max(p.rate[i]/paceWaits, 1), paceMost)
	return p.empty[i] + int64(scale(n, second, p.rate[i])) + 1
}

// scale is a*b/c, which must fit 64 bits.
func scale(a, b, c uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	q, _ := bits.Div64(hi, lo, c)
	return q
}

// way is the index of the direction that is read from e.
func (s *pair) way(e *end) int {
	if e == &s.up {
		return 1
	}
	return 0
}

// allowed is how many of n bytes may be read from src now. 0: none, and src is
// looked at again when it is time; what ends it needs no time.
func (s *pair) allowed(src *end, n int) int {
	p := s.pace
	if p == nil {
		return n
	}
	i, now := s.way(src), s.loop.now
	waits := p.until[i] > now
	if room := p.room(i, now); room > 0 && !waits {
		s.unpause(src, i)
		return min(n, room)
	}
	src.readable = false
	if src.failed || src.broken {
		src.broken = true
		return 0
	}
	if src.rdhup {
		var b [1]byte
		if got, errno := rawRecv(src.fd, b[:], unix.MSG_PEEK); got <= 0 {
			s.readEnded(src, got, errno)
			if src.eof || src.broken {
				return 0
			}
		}
	}
	// Asked again, epoll tells again of an end of stream that lies behind bytes:
	// it is asked once a wait.
	if !waits {
		paused := p.until[i] != 0
		p.until[i] = p.enough(i)
		if !paused {
			s.rewatch(src)
		}
		s.loop.timers.set(s, s.due())
	}
	return 0
}

// unpause has epoll tell of src again.
func (s *pair) unpause(src *end, i int) {
	if s.pace.until[i] != 0 {
		s.pace.until[i] = 0
		s.rewatch(src)
	}
}

// goOn reads on where it is time to.
func (s *pair) goOn() {
	for i, src := range s.ends() {
		if at := s.pace.until[i]; at != 0 && at <= s.loop.now {
			s.unpause(src, i)
			src.readable = true
		}
	}
	s.pumpBoth()
}

// watch is what a relayed session's socket waits for.
func (s *pair) watch(e *end) uint32 {
	events := uint32(readEvents)
	if s.pace != nil && s.pace.until[s.way(e)] != 0 {
		events = pausedEvents
	}
	if e.asksRoom {
		events |= unix.EPOLLOUT
	}
	return events
}

// rewatch tells epoll, which reports anew what is ready already.
func (s *pair) rewatch(e *end) {
	if e.handle >= 0 {
		s.loop.modify(e.fd, e.handle, s.watch(e))
	}
}
