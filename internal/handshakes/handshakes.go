// SPDX-License-Identifier: Apache-2.0

// Package handshakes tells which TCP handshakes toward a port of this host are
// under way. A connection whose SYN has been answered and whose ACK hasn't come
// belongs to the listening socket, and is reset if that is closed; nothing that
// can be asked of the socket itself tells that it is there. sock_diag(7) does,
// without privileges.
package handshakes

import (
	"encoding/binary"
	"fmt"
	"maps"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// From include/uapi/linux/sock_diag.h and inet_diag.h.
const (
	sockDiagByFamily = 20
	requestLen       = 56    // struct inet_diag_req_v2
	messageLen       = 72    // struct inet_diag_msg
	endsAt, endsLen  = 4, 36 // ports and addresses in inet_diag_msg
	stateSynRecv     = 3
)

// maxKnown bounds how many handshakes are told apart; a flood can have begun
// as many as all backlogs together.
const maxKnown = 1 << 17

const (
	firstPause = 5 * time.Millisecond
	lastPause  = 100 * time.Millisecond
)

// ends are the ports and addresses of a handshake, in network order.
type ends [endsLen]byte

// Observer asks the kernel. Its zero value is ready, it holds nothing while
// nobody waits, and it may be used by any number at once: they share what is
// asked, as each answer costs the kernel a walk through all its connections
// (inet_diag_dump_icsk), some milliseconds of a core.
type Observer struct {
	mu   sync.Mutex
	next *dump      // is yet to begin; nil: nobody waits for one. Under mu
	turn sync.Mutex // held by the dump that is being made
}

// Await waits until no handshake toward port that is under way now still is,
// limit at most. Handshakes that begin later are not waited for. An error says
// that the kernel doesn't tell; nothing has been waited for then, or not to
// the end.
func (o *Observer) Await(port uint16, limit time.Duration) error {
	end := time.Now().Add(limit)
	first, err := o.pending(port)
	if err != nil {
		return err
	}
	left := maps.Clone(first)
	for pause := firstPause; len(left) > 0; pause = min(2*pause, lastPause) {
		rest := time.Until(end)
		if rest <= 0 {
			return nil
		}
		time.Sleep(min(pause, rest))
		now, err := o.pending(port)
		if err != nil {
			return err
		}
		for h := range left {
			if _, still := now[h]; !still {
				delete(left, h)
			}
		}
	}
	return nil
}

// pending are the handshakes toward port that are under way, told by a dump
// that begins after the call. Others may read the map.
func (o *Observer) pending(port uint16) (map[ends]struct{}, error) {
	o.mu.Lock()
	d := o.next
	if d == nil {
		d = &dump{ports: map[uint16]map[ends]struct{}{}, done: make(chan struct{})}
		o.next = d
		go o.make(d)
	}
	if d.ports[port] == nil {
		d.ports[port] = map[ends]struct{}{}
	}
	o.mu.Unlock()
	<-d.done
	return d.ports[port], d.err
}

// make makes d once the dump before it is complete. Until then whoever asks
// joins d.
func (o *Observer) make(d *dump) {
	o.turn.Lock()
	defer o.turn.Unlock()
	o.mu.Lock()
	o.next = nil
	o.mu.Unlock()
	d.err = d.read()
	close(d.done)
}

// dump is one look at the handshakes toward some ports.
type dump struct {
	ports map[uint16]map[ends]struct{} // those that were asked for
	known int                          // in all of them
	err   error
	done  chan struct{}
}

func (d *dump) read() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return fmt.Errorf("sock_diag: %w", err)
	}
	defer unix.Close(fd)
	// A dump is made while it is read, so a read never waits long.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		return fmt.Errorf("sock_diag: %w", err)
	}
	var port uint16 // 0: any
	if len(d.ports) == 1 {
		for port = range d.ports {
		}
	}
	buf := make([]byte, 32<<10)
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		if err := unix.Sendto(fd, request(family, port), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return fmt.Errorf("sock_diag: %w", err)
		}
		for done := false; !done; {
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return fmt.Errorf("sock_diag: %w", err)
			}
			if done, err = d.collect(buf[:n]); err != nil {
				return fmt.Errorf("sock_diag: %w", err)
			}
		}
	}
	return nil
}

// request asks for the handshakes of one family whose local port is port; 0 is
// any.
func request(family byte, port uint16) []byte {
	b := make([]byte, unix.SizeofNlMsghdr+requestLen)
	binary.NativeEndian.PutUint32(b[0:], uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], sockDiagByFamily)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	q := b[unix.SizeofNlMsghdr:]
	q[0], q[1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(q[4:], 1<<stateSynRecv)
	binary.BigEndian.PutUint16(q[8:], port)
	return b
}

// collect adds the handshakes of one read; done is the dump's end.
func (d *dump) collect(b []byte) (done bool, err error) {
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return false, unix.EBADMSG
		}
		body := b[unix.SizeofNlMsghdr:size]
		switch binary.NativeEndian.Uint16(b[4:]) {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			if len(body) < 4 {
				return false, unix.EBADMSG
			}
			return false, unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
		case sockDiagByFamily:
			if len(body) < messageLen || d.known >= maxKnown {
				break
			}
			h := ends(body[endsAt : endsAt+endsLen])
			// It begins with the local port.
			if found := d.ports[binary.BigEndian.Uint16(h[:])]; found != nil {
				found[h] = struct{}{}
				d.known++
			}
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return false, nil
}
