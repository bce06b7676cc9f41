// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"

	"golang.org/x/sys/unix"

	"sluice/accesslog"
	"sluice/config"
	"sluice/loader"
	"sluice/session"
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
func (s *pair) considerMap() {
	if s.noMap || s.turns < mapTurns || s.mean > mapMean {
		return
	}
	e := s.loop.e
	if c := s.Settings.Config; (c.UploadRate > 0 || c.DownloadRate > 0) && (e.splice != nil || e.offload.Load() != nil) && c.Datapath != config.Relay {
		s.noMap = true
		s.Fell(session.Rate)
		return
	}
	if !s.Settings.SpliceAllowed {
		return
	}
	if s.loop.batch > e.mapBatch*batchOne {
		return // looked at again with the next message
	}
	c, u := &s.cli, &s.up
	if e.splice == nil || c.handle < 0 || c.held != nil || u.held != nil || c.readable || u.readable ||
		c.eof || u.eof || c.broken || u.broken || c.rdhup || u.rdhup {
		return
	}
	if s.front.addr.Path != "" || s.Backend.Addr.Unix != "" {
		s.noMap = true // unix sockets don't enter a map
		s.Fell(session.Unix)
		return
	}
	s.enterMap()
}

// enterMap does what the kernel needs, in the order it needs it (docs/splice.md).
func (s *pair) enterMap() {
	l, e := s.loop, s.loop.e
	s.noMap = true
	flow, ok := e.splice.Reserve()
	if !ok {
		s.Fell(session.MapFull)
		return
	}
	if s.window == windowFresh {
		s.bindWindow()
	}
	m := &splicer{s: s, flow: flow}
	for i, x := range s.ends() {
		at, ok := exactly(x.fd)
		if !ok {
			e.splice.Free(flow)
			s.Fell(session.MapError)
			return
		}
		from, to := &m.dir[i], &m.dir[1-i]
		from.src, from.dst, from.shared = x, x.other(), e.splice.Direction(2*flow+uint32(i))
		from.taken = at.taken
		to.base, to.outAt = at.entered, x.out
		if !x.eager {
			x.eager = true
			rawSetInt(x.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		}
	}
	s.mover = m
	e.flows[flow].Store(m)
	l.modify(s.cli.fd, s.cli.handle, spliceEvents)
	l.modify(s.up.fd, s.up.handle, spliceEvents)
	s.state = stateMoved
	s.deadline = 0
	oneWay, err := e.splice.Add(flow, int(s.cli.fd), int(s.up.fd))
	if err != nil {
		m.refused(err)
		return
	}
	m.live = true
	if oneWay {
		s.Fell(session.HalfClosed)
		m.dir[1].change(leftOut)
		m.rearm(&m.dir[0])
		m.rearm(&m.dir[1])
	}
	l.startMoving(s)
}

// refused goes back to relay. A half-closed client (EOPNOTSUPP) is no error;
// anything that may have touched a byte ends the session.
func (m *splicer) refused(err error) {
	s := m.s
	l, e := s.loop, s.loop.e
	s.mover = nil
	e.flows[m.flow].Store(nil)
	e.splice.Free(m.flow)
	s.state = stateRelay
	switch {
	case errors.Is(err, loader.ErrMoved):
		s.Fell(session.MapError)
		s.cut(accesslog.Internal)
		return
	case errors.Is(err, unix.EOPNOTSUPP):
		s.Fell(session.HalfClosed)
	default:
		s.Fell(session.MapError)
		e.log.Debug().Err(err).Str("listener", s.Settings.Config.Name).Msg("a session could not enter the map")
	}
	if at := s.due(); at > 0 {
		l.timers.set(s, at)
	}
	s.cli.asksRoom, s.up.asksRoom = true, true
	l.modify(s.cli.fd, s.cli.handle, relayEvents)
	l.modify(s.up.fd, s.up.handle, relayEvents)
	s.cli.readable, s.up.readable = true, true
	s.makeHot()
}
