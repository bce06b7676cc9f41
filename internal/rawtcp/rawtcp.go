// SPDX-License-Identifier: Apache-2.0

// Package rawtcp sends TCP segments that belong to no socket of the host: for
// connections that are known by their numbers only.
package rawtcp

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// ErrNotPermitted is matched by Open's error when CAP_NET_RAW is missing.
var ErrNotPermitted = errors.New("raw sockets: not permitted: run as root or grant CAP_NET_RAW")

// Sender has the raw sockets. Its methods may be called at once from several
// goroutines, except Close.
type Sender struct{ v4, v6 int }

// Open makes the sockets, which takes CAP_NET_RAW; sending takes none. Without IPv6
// on the host only IPv4 can be sent. Close closes them.
func Open() (*Sender, error) {
	v4, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return nil, opening(err)
	}
	v6, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return &Sender{v4, -1}, nil
	}
	if err != nil {
		unix.Close(v4)
		return nil, opening(err)
	}
	return &Sender{v4, v6}, nil
}

func opening(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w: %w", ErrNotPermitted, err)
	}
	return fmt.Errorf("opening a raw socket: %w", err)
}

// Close closes the sockets. It is safe to repeat.
func (s *Sender) Close() error {
	var errs []error
	for _, fd := range []*int{&s.v4, &s.v6} {
		if *fd >= 0 {
			errs = append(errs, unix.Close(*fd))
			*fd = -1
		}
	}
	return errors.Join(errs...)
}

// Reset sends a reset with this sequence number.
func (s *Sender) Reset(from, to netip.AddrPort, seq uint32) error {
	return s.send(Segment{From: from, To: to, Seq: seq, Flags: FlagRST})
}

// Probe sends an acknowledgement without payload. With a sequence number that its
// receiver has acknowledged it is a keepalive: it is answered.
func (s *Sender) Probe(from, to netip.AddrPort, seq, ack uint32) error {
	return s.send(Segment{From: from, To: to, Seq: seq, Ack: ack, Flags: FlagACK, Window: probeWindow})
}

// probeWindow is small, so that whatever unit the receiver takes it for it says less
// than what it was last told; an old sequence number has it ignored.
const probeWindow = 1

func (s *Sender) send(g Segment) error {
	b := g.Append(make([]byte, 0, 64))
	var err error
	switch to := g.To.Addr(); {
	case to.Is4():
		err = unix.Sendto(s.v4, b, unix.MSG_NOSIGNAL, &unix.SockaddrInet4{Addr: to.As4()})
	case s.v6 < 0:
		err = unix.EAFNOSUPPORT
	default:
		err = unix.Sendto(s.v6, b, unix.MSG_NOSIGNAL, &unix.SockaddrInet6{Addr: to.As16()})
	}
	if err != nil {
		return fmt.Errorf("sending a segment to %s: %w", g.To, err)
	}
	return nil
}
