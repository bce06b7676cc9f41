// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// offloadStep is something that offload rests on, tried with a fresh session.
type offloadStep struct {
	name string
	ip6  bool
	run  func(s *session) (detail string, err error)
}

// offloadRun are in the order in which a failure says most.
var offloadRun = [...]offloadStep{
	{name: "register", run: stepRegister},
	{name: "cut", run: stepCut},
	{name: "cut, IPv6", ip6: true, run: stepCut},
	{name: "let go", run: stepLetGo},
	{name: "checksums", run: stepSums},
	{name: "checksums, IPv6", ip6: true, run: stepSums},
	{name: "end of stream", run: stepEnds},
	{name: "end of stream, IPv6", ip6: true, run: stepEnds},
	{name: "reset", run: stepResets},
	{name: "reset of ours", run: stepOurReset},
	{name: "reset of ours, IPv6", ip6: true, run: stepOurReset},
}

// bulkOfStep is enough that a stream comes in packets larger than the wire's.
const bulkOfStep = 256 << 10

// stepRegister: a pair with an end on this host is refused, and one between hosts is
// not; until it is armed its sockets have all packets.
func stepRegister(s *session) (string, error) {
	for _, local := range []struct {
		dials bool
		leg   int
		want  Refusal
		name  string
	}{{true, ClientSide, LocalClient, "client"}, {false, BackendSide, LocalBackend, "backend"}} {
		why, err := s.withLocal(local.dials, local.leg)
		if err != nil {
			return "", err
		}
		if why != local.want {
			return "", fmt.Errorf("a pair with a %s on this host: refusal %d, not %d", local.name, why, local.want)
		}
	}
	if err := s.register(false); err != nil {
		return "", err
	}
	for range 3 {
		if err := s.both(100, 100); err != nil {
			return "", err
		}
	}
	if s.rec.Cut() || s.sent != s.relayed {
		return "", fmt.Errorf("a pair that isn't armed was cut: %d bytes of %d relayed", s.relayed, s.sent)
	}
	if !s.rec.Arm() || !s.rec.Disarm() {
		return "", errors.New("a pair can't be armed and disarmed")
	}
	return "local ends refused, a pair between hosts watched", nil
}

// withLocal tries to enlist the pair with a connection within this host in place of a
// leg.
func (s *session) withLocal(dials bool, leg int) (Refusal, error) {
	theirs, ours, err := s.within(dials)
	if err != nil {
		return Fits, fmt.Errorf("making sockets: %w", err)
	}
	defer closeAll(&theirs, &ours)
	legs := s.legs
	if legs[leg], err = legOf(ours); err != nil {
		return Fits, err
	}
	slot, ok := s.o.f.Reserve()
	if !ok {
		return Fits, errors.New("no flow number left")
	}
	defer s.o.f.Release(slot)
	return s.o.f.Enlist(slot, legs[ClientSide], legs[BackendSide], false)
}

// both has a message go each way.
func (s *session) both(up, down int) error {
	if err := s.message(ClientSide, pattern(up)); err != nil {
		return err
	}
	return s.message(BackendSide, pattern(down))
}

// stepCut: from one packet on the sockets between see nothing, and the peers notice
// nothing.
func stepCut(s *session) (string, error) {
	if err := s.cut(); err != nil {
		return "", err
	}
	at := s.sent
	before, err := s.counted()
	if err != nil {
		return "", err
	}
	for _, n := range []int{1, 1000, bulkOfStep} {
		if err := s.both(n, n+7); err != nil {
			return "", fmt.Errorf("forwarded, of %d bytes: %w", n, err)
		}
	}
	after, err := s.counted()
	if err != nil {
		return "", err
	}
	if before != after {
		return "", fmt.Errorf("the sockets between went on after the cut: counts %v, then %v", before, after)
	}
	if whole, err := s.o.f.Verify(s.slot, s.legs[ClientSide], s.legs[BackendSide]); err != nil || !whole {
		return "", errors.Join(errors.New("sockets that took nothing aren't believed to have"), err)
	}
	return fmt.Sprintf("after %d and %d bytes", at[ClientSide], at[BackendSide]), s.delivered()
}

// counted are the bytes that the sockets between have received and had acknowledged.
func (s *session) counted() (n [4]uint64, err error) {
	for i, fd := range []int{s.front, s.back} {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return n, err
		}
		n[2*i], n[2*i+1] = info.Bytes_received, info.Bytes_acked
	}
	return n, nil
}

// delivered sees that the record's counts are exact.
func (s *session) delivered() error {
	for side := range 2 {
		want := s.sent[side] - s.relayed[side]
		// The last acknowledgement may be delayed.
		if err := s.until(func() bool { return s.rec.Delivered(side) >= want }); err != nil || s.rec.Delivered(side) != want {
			return fmt.Errorf("%d bytes of side %d counted instead of %d", s.rec.Delivered(side), side, want)
		}
	}
	return nil
}

// stepLetGo: neither peer notices that the sockets are gone.
func stepLetGo(s *session) (string, error) {
	if err := s.cut(); err != nil {
		return "", err
	}
	if err := s.delivered(); err != nil { // no acknowledgement is still to come
		return "", err
	}
	if whole, err := s.o.f.Verify(s.slot, s.legs[ClientSide], s.legs[BackendSide]); err != nil || !whole {
		return "", errors.Join(errors.New("sockets that took nothing aren't believed to have"), err)
	}
	packets := [2]uint64{s.rec.Packets(ClientSide), s.rec.Packets(BackendSide)}
	s.letGo()
	s.o.moment("alone", s.slot)
	for side, fd := range []int{s.client, s.server} {
		if s.ready(fd, unix.POLLIN|unix.POLLRDHUP, settle) != 0 {
			return "", fmt.Errorf("a peer noticed that the sockets were let go: %w", errors.Join(errNoticed, sockError(fd)))
		}
		// A peer may also ignore what it is told, as too old; but it answers.
		if n := s.rec.Packets(side); n != packets[side] {
			return "", fmt.Errorf("a peer was told that the sockets were let go: it answered with %d packets", n-packets[side])
		}
	}
	for _, n := range []int{100, bulkOfStep} {
		if err := s.both(n, n+7); err != nil {
			return "", fmt.Errorf("without sockets: %w", err)
		}
	}
	return fmt.Sprintf("%d bytes forwarded, counted exactly", s.sent[0]-s.relayed[0]+s.sent[1]-s.relayed[1]), s.delivered()
}

var errNoticed = errors.New("an end of stream or a reset came")

// alone is a session whose packets are forwarded, with the sockets gone.
func (s *session) alone() error {
	if err := s.cut(); err != nil {
		return err
	}
	s.letGo()
	s.o.moment("alone", s.slot)
	return s.both(100, 100)
}

// stepSums: packets whose checksums are complete, as a network card's are, arrive with
// the right ones. Those before were left to devices that need none.
func stepSums(s *session) (string, error) {
	if err := s.o.net.wholeSums(); err != nil {
		return "", err
	}
	if err := s.alone(); err != nil {
		return "", err
	}
	return "complete ones stay right", s.both(bulkOfStep, bulkOfStep)
}

// stepEnds: ends of stream pass, and the record says which came first and when all
// is over.
func stepEnds(s *session) (string, error) {
	if err := s.alone(); err != nil {
		return "", err
	}
	s.o.moment("ends", s.slot)
	for _, end := range []struct {
		name     string
		from, to int
	}{{"client", s.client, s.server}, {"backend", s.server, s.client}} {
		if err := unix.Shutdown(end.from, unix.SHUT_WR); err != nil {
			return "", err
		}
		if err := s.ended(end.to); err != nil {
			return "", fmt.Errorf("the end of the %s's stream: %w", end.name, err)
		}
	}
	if err := s.until(s.rec.Ended); err != nil {
		return "", fmt.Errorf("both ends of stream don't end the flow: %s", s.rec)
	}
	if side, ok := s.rec.FirstFin(); !ok || side != ClientSide {
		return "", fmt.Errorf("the first end of stream was the client's, and the record says side %d, %v", side, ok)
	}
	if side, ok := s.rec.WasReset(); ok {
		return "", fmt.Errorf("side %d is said to have reset it", side)
	}
	return "first the client's, then the backend's", s.delivered()
}

// ended wants the end of the stream, and nothing else.
func (s *session) ended(fd int) error {
	rest, err := s.receive(fd, 1)
	if err == nil && len(rest) > 0 {
		err = errors.New("a byte came in front of it that nobody sent")
	}
	return err
}

// stepResets: a reset passes, and the record knows whose it was.
func stepResets(s *session) (string, error) {
	if err := s.alone(); err != nil {
		return "", err
	}
	if err := s.delivered(); err != nil { // a reset overtakes a late acknowledgement
		return "", err
	}
	s.o.moment("ends", s.slot)
	if err := unix.SetsockoptLinger(s.server, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return "", err
	}
	closeAll(&s.server)
	if err := s.wait(s.client, unix.POLLRDHUP); err != nil {
		return "", fmt.Errorf("the backend's reset: %w", err)
	}
	if err := sockError(s.client); !errors.Is(err, unix.ECONNRESET) {
		return "", fmt.Errorf("the client was told %v instead of the backend's reset", err)
	}
	if side, ok := s.rec.WasReset(); !ok || side != BackendSide || !s.rec.Ended() {
		return "", fmt.Errorf("the backend's reset doesn't end the flow: %s", s.rec)
	}
	return "the backend's", nil
}

// stepOurReset: a session that has no sockets any more can be ended at both ends.
func stepOurReset(s *session) (string, error) {
	if err := s.alone(); err != nil {
		return "", err
	}
	if err := s.delivered(); err != nil {
		return "", err
	}
	s.o.moment("ends", s.slot)
	s.rec.Reset()
	for side, fd := range []int{s.client, s.server} {
		p := s.rec.ResetPoint(side)
		if err := s.o.raw.Reset(p.From, p.To, p.Acked); err != nil {
			return "", err
		}
		if err := s.wait(fd, unix.POLLRDHUP); err != nil {
			return "", fmt.Errorf("a reset sent to side %d: %w", side, err)
		}
		if err := sockError(fd); !errors.Is(err, unix.ECONNRESET) {
			return "", fmt.Errorf("side %d was told %v instead of a reset", side, err)
		}
	}
	return "taken by both ends", nil
}
