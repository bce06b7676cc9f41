// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sluice/loader"
	"sluice/session"
)

const (
	// offloadTurns is how many reads a session must have had before its packets may
	// be forwarded: that of a second message. A session of one message and its answer
	// is never registered; from the second message on it pays (docs/offload.md).
	offloadTurns = 3
	// armedTime is how long a session waits for the moment at which nothing is
	// under way, before it is left to the lower datapaths.
	armedTime = int64(10 * time.Second)
)

// Ports hands out source ports toward backends that no socket of the host has:
// those of a forwarded session are no socket's, but in use.
type Ports interface {
	// Take gives a port to dial this backend from; ok false: none is free.
	Take(backend netip.AddrPort) (port uint16, ok bool)
	// Give gives it back; it isn't taken again for rest.
	Give(backend netip.AddrPort, port uint16, rest time.Duration)
}

// Resetter sends segments that no socket of the host sends.
type Resetter interface {
	// Reset sends a reset with this sequence number.
	Reset(from, to netip.AddrPort, seq uint32) error
	// Probe sends an acknowledgement without payload, which its receiver answers
	// if seq is one that it has acknowledged.
	Probe(from, to netip.AddrPort, seq, ack uint32) error
}

// Offload is what sessions need to be forwarded packet by packet. All of it is its
// owner's, who closes it after the engine.
type Offload struct {
	Forward *loader.Forward
	Ports   Ports
	Raw     Resetter
}

// offloadFault is what tests break, to see what becomes of a session.
type offloadFault struct {
	noLook     bool // no session is looked at each second
	noPeers    bool // nobody asks whether ends are there
	noTakeBack bool // a session is ended as if it hadn't been cut
	everyPort  bool // short sessions are dialled from our ports like others
}

// offloading is an Offload in use.
type offloading struct {
	Offload
	fault  offloadFault
	flows  []atomic.Pointer[forwarder] // by number, from registering to the record's release
	used   atomic.Int64                // of them
	plain  atomic.Int64                // SYNs that are being kept plain
	handle int32                       // of its events, on the first loop
	marks  marks
	// asksECN says whether connections that we make ask for ECN by themselves.
	asksECN atomic.Bool
}

// errOffloadInUse is for an Offload of which flows are left.
var errOffloadInUse = errors.New("sessions are being forwarded")

// SetOffload has sessions forwarded from now on, or with nil no further ones: what was
// in use before may be closed then, and an error says that it is still in use. It is
// not to be called at once with itself. Fronts learn of it when they are next told to
// Serve.
func (e *Engine) SetOffload(o *Offload) error {
	first := e.loops[0]
	if before := e.offload.Swap(nil); before != nil {
		for _, l := range e.loops {
			l.call(func() {}) // who has just looked is done
		}
		if before.used.Load() > 0 || before.plain.Load() > 0 {
			e.offload.Store(before)
			return errOffloadInUse
		}
		before.marks.end()
		first.call(func() { first.deregister(int32(before.Forward.Announcements()), before.handle) })
	}
	if o == nil {
		return nil
	}
	next := &offloading{
		Offload: *o, flows: make([]atomic.Pointer[forwarder], o.Forward.MaxFlows()),
		marks: marks{forward: o.Forward, fronts: map[netip.AddrPort]int{}, plain: map[netip.AddrPort]bool{}},
	}
	next.asksECN.Store(hostAsksECN())
	var err error
	first.call(func() {
		next.handle, err = first.register(int32(o.Forward.Announcements()), unix.EPOLLIN, forwardings{next})
	})
	if err == nil {
		e.offload.Store(next)
	}
	return err
}

// Forwarded is how many records of flows are in use: those of sessions, and those that
// late packets of ended ones are still sent on by.
func (e *Engine) Forwarded() int {
	if o := e.offload.Load(); o != nil {
		return int(o.used.Load())
	}
	return 0
}

// considerOffload hands the session's packets to the kernel if that pays. True: the
// session is on its way there.
func (s *pair) considerOffload() bool {
	if s.fwd != nil {
		return true
	}
	o := s.loop.e.offload.Load()
	if s.noOffload || o == nil || s.turns < offloadTurns || !s.Settings.OffloadAllowed {
		return false
	}
	c, u := &s.cli, &s.up
	if c.handle < 0 || c.held != nil || u.held != nil || c.broken || u.broken || s.delivery != nil || s.pace != nil {
		return false // looked at again with the next message
	}
	s.noOffload = true
	s.noteLength(true)
	switch {
	case s.front.addr.Path != "" || s.Backend.Addr.Unix != "":
		s.Fell(session.Unix)
	case c.eof || u.eof || c.rdhup || u.rdhup:
		s.Fell(session.HalfClosed)
	case s.port == 0:
		s.Fell(session.NoPorts)
	default:
		return s.enlist(o)
	}
	return false
}

// enlist registers the session's sockets: the next packet that finds nothing under
// way is the first that is forwarded.
func (s *pair) enlist(o *offloading) bool {
	e := s.loop.e
	slot, ok := o.Forward.Reserve()
	if !ok {
		s.Fell(session.TableFull)
		return false
	}
	m := &forwarder{
		s: s, o: o, slot: slot, rec: o.Forward.Flow(slot),
		client:  loader.Leg{Peer: remoteAddr(s.cli.fd), Local: localAddr(s.cli.fd)},
		backend: loader.Leg{Peer: remoteAddr(s.up.fd), Local: localAddr(s.up.fd)},
	}
	m.keep() // from the cut on, which nobody waits for, the flow may outlive us
	why := loader.NoSocket
	if m.client.Peer.IsValid() && m.backend.Peer.IsValid() {
		var err error
		if why, err = o.Forward.Enlist(slot, m.client, m.backend, true); err != nil {
			e.log.Warn().Err(err).Str("listener", s.Settings.Config.Name).Msg("a session could not be registered")
		}
	}
	if why != loader.Fits {
		o.Forward.Release(slot)
		s.learnFrom(o, why)
		s.Fell(fallbackOf(why))
		return false
	}
	s.fwd, m.armedAt = m, s.loop.now
	o.flows[slot].Store(m)
	o.used.Add(1)
	s.loop.startSweep()
	s.loop.armed++
	s.loop.seek(m)
	return true
}

// learnFrom has the next sessions fit where this one doesn't.
func (s *pair) learnFrom(o *offloading, why loader.Refusal) {
	if why != loader.SegmentSize && why != loader.OneECN && why != loader.OneTimestamps {
		return
	}
	segment, options, ok := agreedOn(s.up.fd)
	switch {
	case !ok:
	case why == loader.SegmentSize:
		s.front.learnSegments(segment)
	case why == loader.OneTimestamps:
		if options&hasTimestamps == 0 { // else it is the client, and our SYN could not be made plain
			s.front.learnPlain(o, true)
		}
	case options&hasECN != 0:
		o.asksECN.Store(true)
	}
}

// fallbackOf is the word for a refusal.
func fallbackOf(why loader.Refusal) session.Fallback {
	switch why {
	case loader.NotConnected:
		return session.HalfClosed
	case loader.LocalClient:
		return session.LocalClient
	case loader.LocalBackend:
		return session.LocalBackend
	case loader.NoDevice:
		return session.Device
	case loader.Xfrm:
		return session.Xfrm
	case loader.OneTimestamps:
		return session.Timestamps
	case loader.OneECN:
		return session.ECN
	case loader.SegmentSize:
		return session.MSS
	case loader.WindowScale:
		return session.WindowScale
	}
	return session.Order
}

// withdraw leaves the packets of a registered session to its sockets again. Taken:
// they are forwarded by now, and the session has just become the forwarder's.
func (s *pair) withdraw() (taken bool) {
	m := s.fwd
	if m == nil || s.mover != nil {
		return false
	}
	m.endQuiet()
	if !m.rec.Disarm() && !m.o.fault.noTakeBack {
		m.takeOver()
		return true
	}
	s.fwd = nil
	s.loop.armed--
	m.o.free(m.slot)
	return false
}

// free gives a registered flow's number back.
func (o *offloading) free(slot uint32) {
	o.flows[slot].Store(nil)
	o.Forward.Release(slot)
	o.used.Add(-1)
}

// sweepArmed gives up on sessions that find no moment to be handed over.
func (l *loop) sweepArmed() {
	l.sessions.each(func(s *pair) {
		m := s.fwd
		if m == nil || s.mover != nil {
			return
		}
		if m.rec.Cut() { // its event was lost
			m.takeOver()
			return
		}
		if l.now-m.armedAt >= armedTime && !s.withdraw() {
			s.Fell(session.Busy)
		}
	})
}
