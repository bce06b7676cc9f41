// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"

	"sluice/loader"
	"sluice/session"
)

// kept is what the next process has to know of a forwarded session beside its record.
// The tags are its layout, as those of session.Saved.
type kept struct {
	Session     session.Saved `cbor:"1,keyasint"`
	FromClient  uint64        `cbor:"2,keyasint"` // by the sockets so far: what came later the record knows
	ToClient    uint64        `cbor:"3,keyasint"`
	FromBackend uint64        `cbor:"4,keyasint"`
	ToBackend   uint64        `cbor:"5,keyasint"`
	Last        int64         `cbor:"6,keyasint"`
	LetGo       bool          `cbor:"7,keyasint,omitempty"` // no socket has anything of it
	ClientRTT   time.Duration `cbor:"8,keyasint,omitempty"`
	UpstreamRTT time.Duration `cbor:"9,keyasint,omitempty"`
	Retrans     int64         `cbor:"10,keyasint"`
}

// keep saves the session for the process that comes after this one, if flows outlive it:
// when it is registered, and again when its sockets are let go.
func (m *forwarder) keep() {
	if !m.o.Forward.Pinned() {
		return
	}
	s := m.s
	k := kept{
		Session: s.Save(), FromClient: s.cli.in, ToClient: s.cli.out, FromBackend: s.up.in, ToBackend: s.up.out,
		Last: s.last, LetGo: m.letGo,
		ClientRTT: m.info.clientRTT, UpstreamRTT: m.info.upstreamRTT, Retrans: m.info.upstreamRetrans,
	}
	b, err := k.encode()
	if err == nil {
		err = m.o.Forward.Save(m.slot, b)
	}
	if err == nil {
		return
	}
	e := s.loop.e
	if missed, ok := e.unkept.take(s.loop.now); ok {
		e.log.Warn().Err(err).Str("listener", s.Settings.Config.Name).Uint64("others", missed).
			Msg("a session could not be saved: it is reset once this process has ended")
	}
}

// encode is k as loader.Forward.Save takes it: where it is too long, attempts are left
// out, the oldest first.
func (k *kept) encode() ([]byte, error) {
	for {
		b, err := cbor.Marshal(k)
		if err != nil {
			return nil, fmt.Errorf("writing what is to be saved of a session: %w", err)
		}
		if len(b) <= loader.SavedBytes || !k.Session.Shorten() {
			return b, nil
		}
	}
}

// decodeKept reads what was saved, which zeros may follow.
func decodeKept(b []byte) (*kept, error) {
	k := &kept{}
	if _, err := cbor.UnmarshalFirst(b, k); err != nil {
		return nil, fmt.Errorf("reading what was saved of a session: %w", err)
	}
	return k, nil
}

// Leavable is how many sessions would go on by themselves if the process ended.
func (e *Engine) Leavable() (n int) {
	for _, l := range e.loops {
		l.call(func() {
			l.sessions.each(func(s *pair) {
				if m := s.fwd; m != nil && m.live && m.o.Forward.Pinned() {
					n++
				}
			})
		})
	}
	return n
}

// LeaveForwarded has this process take no further part in the sessions that go on by
// themselves: the next one that has their flows logs them. It is done when it returns.
func (e *Engine) LeaveForwarded() {
	for _, l := range e.loops {
		l.call(func() {
			l.sessions.each(func(s *pair) {
				if m := s.fwd; m != nil && m.live && m.o.Forward.Pinned() {
					m.depart()
				}
			})
		})
	}
}

// depart is finish for a session that goes on.
func (m *forwarder) depart() {
	m.dropSockets()
	if !m.live {
		return // the sockets' last word has ended it
	}
	s, l := m.s, m.s.loop
	if m.rec.Ended() {
		m.ended()
		return
	}
	m.live = false
	m.o.flows[m.slot].Store(nil)
	m.o.used.Add(-1)
	l.moving--
	s.state = stateEnded
	s.deadline = 0
	l.timers.remove(s)
	if s.ending {
		l.ending--
	}
	l.sessions.remove(s)
	l.load.Add(-1)
	s.Leave(l.now)
}
