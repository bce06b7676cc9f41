// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// session is what a step of offload works with: a flow number, and the sockets of a
// relay between two hosts, each non-blocking.
//
//	client --- front | back --- server
type session struct {
	patience
	o       *offloadTest
	slot    uint32
	rec     *Flow
	ip6     bool
	client  int
	front   int
	back    int
	server  int
	legs    [2]Leg
	sent    [2]uint64 // bytes of the client, of the server
	relayed [2]uint64 // of those, that went through the sockets between
}

// runStep gives a step a session, and takes it back.
func (o *offloadTest) runStep(ctx context.Context, st offloadStep) (string, error) {
	if st.ip6 && !o.net.ip6 {
		return "IPv6 is off here", nil
	}
	slot, ok := o.f.Reserve()
	if !ok {
		return "", errors.New("no flow number left")
	}
	s := &session{patience: patience{limit(ctx)}, o: o, slot: slot, rec: o.f.Flow(slot), ip6: st.ip6, client: -1, front: -1, back: -1, server: -1}
	defer s.close()
	o.step = st.name
	var err error
	if s.client, s.front, err = s.across(ClientSide, true); err == nil {
		s.server, s.back, err = s.across(BackendSide, false)
	}
	if err == nil {
		s.legs[ClientSide], err = legOf(s.front)
	}
	if err == nil {
		s.legs[BackendSide], err = legOf(s.back)
	}
	if err != nil {
		return "", fmt.Errorf("making sockets: %w", err)
	}
	return st.run(s)
}

// close leaves the flow to nobody before the sockets say their last.
func (s *session) close() {
	s.letGo()
	closeAll(&s.client, &s.server)
	s.o.f.Release(s.slot)
	s.o.moment("released", s.slot)
}

// across makes a connection between a side's host and ours: the host's end first.
// dials says whether the host dials it.
func (s *session) across(side int, dials bool) (theirs, ours int, err error) {
	return s.connected(dials, side, s.o.net.sides[side].host.do)
}

// within makes one over our own loopback, likewise.
func (s *session) within(dials bool) (theirs, ours int, err error) {
	return s.connected(dials, loopbackSide, func(f func() error) error { return f() })
}

// loopbackSide stands for the side of connections within a host.
const loopbackSide = 127

func (s *session) connected(dials bool, side int, there func(func() error) error) (theirs, ours int, err error) {
	theirs, ours = -1, -1
	defer func() {
		if err != nil {
			closeAll(&theirs, &ours)
		}
	}()
	family := unix.AF_INET
	if s.ip6 {
		family = unix.AF_INET6
	}
	if err = there(func() (err error) { theirs, err = socket(family, 0); return err }); err != nil {
		return theirs, ours, err
	}
	if ours, err = socket(family, 0); err != nil {
		return theirs, ours, err
	}
	// Who listens gives way to what it accepts.
	listening, dialling, at := &ours, theirs, s.addr(side, 1)
	if !dials {
		listening, dialling, at = &theirs, ours, s.addr(side, 2)
	}
	accepted, err := s.connect(*listening, dialling, at)
	if err != nil {
		return theirs, ours, err
	}
	closeAll(listening)
	*listening = accepted
	return theirs, ours, nil
}

// addr is where to listen.
func (s *session) addr(side, last int) unix.Sockaddr {
	switch {
	case side == loopbackSide && s.ip6:
		return &unix.SockaddrInet6{Addr: [16]byte{15: 1}}
	case side == loopbackSide:
		return &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	case s.ip6:
		a := side6(side, last)
		return &a
	}
	a := side4(side, last)
	return &a
}

// legOf is the connection of a socket of ours.
func legOf(fd int) (Leg, error) {
	local, err := unix.Getsockname(fd)
	if err != nil {
		return Leg{}, err
	}
	peer, err := unix.Getpeername(fd)
	if err != nil {
		return Leg{}, err
	}
	return Leg{Peer: addrPort(peer), Local: addrPort(local)}, nil
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// register enlists the pair, which has to fit.
func (s *session) register(arm bool) error {
	why, err := s.o.f.Enlist(s.slot, s.legs[ClientSide], s.legs[BackendSide], arm)
	if err == nil && why != Fits {
		err = fmt.Errorf("a pair that fits was refused: refusal %d", why)
	}
	if err == nil {
		s.o.moment("registered", s.slot)
	}
	return err
}

// message has one side send data, which has to be what the other side gets. On the way
// it is relayed, as far as it comes to the sockets between.
func (s *session) message(side int, data []byte) error {
	from, near, far, to := s.client, s.front, s.back, s.server
	name := "client to backend"
	if side == BackendSide {
		from, near, far, to = s.server, s.back, s.front, s.client
		name = "backend to client"
	}
	var got, rest []byte = make([]byte, 0, len(data)), data
	for buf := make([]byte, 64<<10); len(got) < len(data); {
		idle := true
		if n, err := unix.Write(from, rest); n > 0 {
			rest, idle = rest[n:], false
			s.sent[side] += uint64(n)
		} else if err != nil && !errors.Is(err, unix.EAGAIN) {
			return fmt.Errorf("%s: sending: %w", name, err)
		}
		if near >= 0 {
			if n, _ := unix.Read(near, buf); n > 0 {
				if err := s.send(far, buf[:n]); err != nil {
					return fmt.Errorf("%s: relaying: %w", name, err)
				}
				idle = false
				s.relayed[side] += uint64(n)
			}
		}
		n, err := unix.Read(to, got[len(got):len(data)])
		switch {
		case n > 0:
			got, idle = got[:len(got)+n], false
		case n == 0 && err == nil:
			return fmt.Errorf("%s: an end of stream after %d of %d bytes", name, len(got), len(data))
		case !errors.Is(err, unix.EAGAIN):
			return fmt.Errorf("%s: after %d of %d bytes: %w", name, len(got), len(data), err)
		}
		if idle && !s.either(near, to) {
			return fmt.Errorf("%s: %d of %d bytes came: %w", name, len(got), len(data), errLate)
		}
	}
	if err := same(got, data); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// either waits for something to read at one of the two.
func (s *session) either(near, to int) bool {
	if near < 0 {
		return s.wait(to, unix.POLLIN) == nil
	}
	var arrived bool
	err := s.until(func() bool {
		arrived = s.ready(near, unix.POLLIN, 0) != 0 || s.ready(to, unix.POLLIN, 0) != 0
		return arrived
	})
	return err == nil
}

// cut arms the pair and has messages go to and fro until one is the first that is
// forwarded.
func (s *session) cut() error {
	if err := s.register(true); err != nil {
		return err
	}
	const messages = 8
	for i := range messages {
		for side := range 2 {
			if err := s.message(side, pattern(100+i)); err != nil {
				return err
			}
			if s.rec.Cut() {
				s.o.moment("cut", s.slot)
				return nil
			}
		}
	}
	return fmt.Errorf("%d messages and answers found no moment with nothing under way: %s", messages, s.o.told())
}

// told is what the program has counted.
func (o *offloadTest) told() (text string) {
	for _, c := range o.f.Outcomes() {
		if c.Count > 0 {
			text += fmt.Sprintf(" %s %d", c.Name, c.Count)
		}
	}
	if text == "" {
		return "the program saw no packet of it"
	}
	return "the program counts" + text
}

// letGo closes both sockets without a word to anybody.
func (s *session) letGo() {
	for _, fd := range []int{s.front, s.back} {
		if fd >= 0 && !s.o.fault.noRepair {
			_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1)
		}
	}
	closeAll(&s.front, &s.back)
}
