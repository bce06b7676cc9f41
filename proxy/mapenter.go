// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"sluice/loader"
	"sluice/stats"
)

const (
	// mapTurns is how many reads a session must have had before it can enter
	// the map: adding and removing a pair costs about twenty system calls,
	// and each message that the kernel moves saves three and a wake-up.
	mapTurns = 16
	// mapMean is the mean read above which a session is bulk, and stays with
	// relay, which moves bulk faster (docs/performance.md).
	mapMean = 4 << 10
	// mapBatch is the mean of events a wake above which no session enters the
	// map. In the map a message costs a worker's wake-up whatever the load; a
	// loop that finds many at each of its own moves them for less, and has the
	// more of them the busier the box is (docs/performance.md).
	mapBatch = 3
)

// considerMap puts the session into the map if that pays.
func (s *session) considerMap() {
	if s.noMap || s.turns < mapTurns || s.mean > mapMean || !s.set.SpliceAllowed {
		return
	}
	e := s.loop.e
	if s.loop.batch > e.mapBatch*batchOne {
		return // looked at again with the next message
	}
	c, u := &s.cli, &s.up
	if e.splice == nil || c.handle < 0 || c.held != nil || u.held != nil || c.readable || u.readable ||
		c.eof || u.eof || c.broken || u.broken || c.rdhup || u.rdhup {
		return
	}
	if !s.client.IsValid() || s.backend.Addr.Unix != "" {
		s.noMap = true // unix sockets don't enter a map
		return
	}
	s.enterMap()
}

// enterMap does what the kernel needs, in the order it needs it (docs/splice.md).
func (s *session) enterMap() {
	l, e := s.loop, s.loop.e
	s.noMap = true
	flow, ok := e.splice.Reserve()
	if !ok {
		s.set.Counters.Fallback("map_full")
		return
	}
	k := &kernelPart{flow: flow}
	for i, x := range s.ends() {
		w, ok := enteredExactly(x.other().fd)
		if !ok {
			e.splice.Free(flow)
			return
		}
		k.half[i] = e.splice.Half(2*flow + uint32(i))
		k.dir[i] = passing{inAt: x.in, outAt: x.other().out, base: w}
		if !x.eager {
			x.eager = true
			rawSetInt(x.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		}
	}
	s.kern = k
	e.flows[flow].Store(s)
	l.modify(s.cli.fd, s.cli.handle, spliceEvents)
	l.modify(s.up.fd, s.up.handle, spliceEvents)
	s.state = stateSplice
	s.deadline = 0
	k.in = true
	oneWay, err := e.splice.Add(flow, int(s.cli.fd), int(s.up.fd))
	if err != nil {
		s.refusedByMap(err)
		return
	}
	if oneWay {
		s.set.Counters.Fallback("half_closed")
		k.dir[1].plain = true
		s.rearm(0)
		s.rearm(1)
	}
	if l.spliced == 0 {
		l.sweepAt = l.now + int64(time.Second)
	}
	l.spliced++
}

// refusedByMap goes back to relay. A half-closed client (EOPNOTSUPP) is no
// error; anything that may have touched a byte ends the session.
func (s *session) refusedByMap(err error) {
	l, e := s.loop, s.loop.e
	k := s.kern
	touched := errors.Is(err, loader.ErrMoved)
	k.in = false
	s.kern = nil
	e.flows[k.flow].Store(nil)
	e.splice.Free(k.flow)
	s.state = stateRelay
	if touched {
		s.set.Counters.Fallback("map_error")
		s.cut(stats.Internal)
		return
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		s.set.Counters.Fallback("half_closed")
	} else {
		s.set.Counters.Fallback("map_error")
		e.log.Debug().Err(err).Str("listener", s.set.Config.Name).Msg("a session could not enter the map")
	}
	if s.set.Config.IdleTimeout > 0 {
		l.timers.set(s, l.now+int64(s.set.Config.IdleTimeout))
	}
	s.cli.asksRoom, s.up.asksRoom = true, true
	l.modify(s.cli.fd, s.cli.handle, relayEvents)
	l.modify(s.up.fd, s.up.handle, relayEvents)
	s.cli.readable, s.up.readable = true, true
	s.makeHot()
}

// entered is how many bytes have entered the socket's send queue since its
// connection began, give or take a constant: acknowledged ones first, so that
// what is acknowledged in between is never counted twice.
func entered(fd int32) (uint64, bool) {
	var ti unix.TCPInfo
	if !tcpInfo(fd, &ti) {
		return 0, false
	}
	return ti.Bytes_acked + outq(fd), true
}

// enteredExactly is entered while nothing enters, without missing what is
// acknowledged between the two looks. A base that is too low would have drained
// say too early that all is there.
func enteredExactly(fd int32) (uint64, bool) {
	var before, after unix.TCPInfo
	if !tcpInfo(fd, &before) {
		return 0, false
	}
	for {
		queued := outq(fd)
		if !tcpInfo(fd, &after) {
			return 0, false
		}
		if after.Bytes_acked == before.Bytes_acked {
			return after.Bytes_acked + queued, true
		}
		before = after
	}
}
