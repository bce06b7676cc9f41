// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"sluice/accesslog"
	"sluice/loader"
	"sluice/pool"
	"sluice/session"
)

// Heir is what a session that a process before has served goes on with.
type Heir struct {
	Settings *session.Settings
	Pool     *pool.Pool
	Backend  *pool.Backend
}

// Adopt takes over the flows that a process before has left in the Offload in use.
// heir says what each goes on with. It has to be called within Registry.Update and waits
// for nobody. adopted are the sessions that go on, or whose end is logged now; lost the
// flows that are reset because nothing, or not enough, is known of them: the process was
// killed in the moment in which it handed them over.
func (e *Engine) Adopt(heir func(*session.Saved) Heir) (adopted, lost int) {
	o := e.offload.Load()
	if o == nil {
		return 0, 0
	}
	nowhere := &Front{e: e}
	for i, left := range o.Forward.Left() {
		l := e.loops[i%len(e.loops)]
		m := o.left(left.Flow, &pair{loop: l, front: nowhere, fdsGiven: true, noOffload: true, noMap: true})
		k, err := decodeKept(left.Saved)
		if err != nil || !m.rec.Cut() {
			if m.rec.Forwarded() {
				lost++
			}
			l.post(m.disown)
			continue
		}
		if k.LetGo {
			adopted++
		} else {
			lost++
		}
		m.resume(k, heir(&k.Session))
		l.load.Add(1)
		l.post(func() { l.adopt(m, k.LetGo) })
	}
	return adopted, lost
}

// left is the forwarder of a flow that was there before this process.
func (o *offloading) left(slot uint32, s *pair) *forwarder {
	m := &forwarder{s: s, o: o, slot: slot, rec: o.Forward.Flow(slot), letGo: true}
	m.client, m.backend = m.rec.Leg(loader.ClientSide), m.rec.Leg(loader.BackendSide)
	s.fwd, s.mover, s.state = m, m, stateMoved
	s.cli, s.up = end{s: s, fd: -1, handle: -1}, end{s: s, fd: -1, handle: -1}
	o.flows[slot].Store(m)
	o.used.Add(1)
	return m
}

// resume has the session be the one that was saved.
func (m *forwarder) resume(k *kept, h Heir) {
	s := m.s
	s.cli.in, s.cli.out, s.up.in, s.up.out = k.FromClient, k.ToClient, k.FromBackend, k.ToBackend
	if !k.LetGo { // it was saved as it was registered
		up, down := m.rec.Relayed(loader.ClientSide), m.rec.Relayed(loader.BackendSide)
		s.cli.in, s.up.out = s.cli.in+up, s.up.out+up
		s.up.in, s.cli.out = s.up.in+down, s.cli.out+down
	}
	s.last = k.Last
	m.info = peerInfo{k.ClientRTT, k.UpstreamRTT, k.Retrans}
	m.live = true
	s.Resume(s.loop.e.sessions, &k.Session, h.Settings, h.Pool, h.Backend, s.totals())
}

// adopt puts a session of a process before on the loop.
func (l *loop) adopt(m *forwarder, whole bool) {
	s := m.s
	l.sessions.add(s)
	l.startMoving(s)
	switch {
	case m.rec.Ended():
		m.ended()
	case !whole, !m.rec.Forwarded(): // its sockets may have taken bytes; or it was about to be reset
		s.cut(accesslog.Internal)
	default:
		s.noteEnding()
	}
}

// disown ends a flow of which too little is known for it to be a session.
func (m *forwarder) disown() {
	m.s.state = stateEnded
	if !m.rec.Forwarded() {
		m.release() // nobody's by now: it has ended, and its line is written
		return
	}
	m.live = true
	m.abort()
	m.live = false
	m.s.loop.linger(m)
}
