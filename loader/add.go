// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// ErrMoved is matched by an error of Add after which the sockets can't be
// used any more: bytes had moved before it failed, and some may be lost with
// the undoing. The session has to be reset, not relayed.
var ErrMoved = errors.New("bytes had already moved: the session has to be reset")

// entry is one map entry's key and value, on the heap for the kernel to read.
type entry struct {
	cookie uint64
	fd     uint64
	index  uint32
}

// Add has the kernel move the bytes between the two sockets of a flow, both
// TCP and established. All that userspace has read from one must have been
// written to the other. What already waits in them is taken along.
//
// oneWay: the backend has closed its side, too late for leaving both sockets
// alone, as the client's bytes may have begun to move. Those the kernel moves;
// the backend's last bytes are read from its socket as ever, and its direction stays
// at 0.
//
// On an error nothing is left in the maps; unless it is ErrMoved the sockets
// are as before and can be relayed. EOPNOTSUPP: one of them isn't established
// any more, because its peer has closed.
func (s *Splice) Add(flow uint32, clientFD, backendFD int) (oneWay bool, err error) {
	e := [2]entry{{fd: uint64(clientFD), index: 2 * flow}, {fd: uint64(backendFD), index: 2*flow + 1}}
	for i := range e {
		cookie, err := unix.GetsockoptUint64(int(e[i].fd), unix.SOL_SOCKET, unix.SO_COOKIE)
		if err != nil {
			return false, fmt.Errorf("splice: reading a socket's cookie: %w", err)
		}
		e[i].cookie = cookie
		s.cookies[flow][i] = cookie
		s.Direction(e[i].index).Reset(s.mark)
	}
	if oneWay, err = s.insert(&e); err != nil {
		return false, s.undo(flow, &e, err)
	}
	return oneWay, nil
}

// insert goes by the order that keeps bytes from being lost: records, both
// targets, then the verdicts, then a kick each.
func (s *Splice) insert(e *[2]entry) (oneWay bool, err error) {
	for i := range e {
		if err := s.objs.Indices.Update(unsafe.Pointer(&e[i].cookie), unsafe.Pointer(&e[i].index), ebpf.UpdateAny); err != nil {
			return false, fmt.Errorf("splice: recording a socket: %w", err)
		}
	}
	for i := range e {
		if err := s.objs.Targets.Update(unsafe.Pointer(&e[i].index), unsafe.Pointer(&e[i].fd), ebpf.UpdateAny); err != nil {
			return false, fmt.Errorf("splice: adding a socket as a target: %w", err)
		}
	}
	for i := range e {
		if i == 1 && s.pause != nil {
			s.pause()
		}
		err := s.objs.Verdicts.Update(unsafe.Pointer(&e[i].index), unsafe.Pointer(&e[i].fd), ebpf.UpdateAny)
		if oneWay = i == 1 && errors.Is(err, unix.EOPNOTSUPP); err != nil && !oneWay {
			return false, fmt.Errorf("splice: adding a socket to the verdict: %w", err)
		}
	}
	if s.rules.noKick {
		return oneWay, nil
	}
	for i := range e {
		if err := kick(int(e[i].fd)); err != nil {
			return false, fmt.Errorf("splice: waking a socket: %w", err)
		}
	}
	return oneWay, nil
}

// kick has the kernel look again at what waits in the socket: entering the
// map doesn't run the verdict on it, setting SO_RCVLOWAT does.
func kick(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, 1) }

// undo takes both sockets out of all maps: first out of the verdict, so that
// the counters stand still, then, as the last reference to what waits in the
// kernel's queues, out of the targets.
func (s *Splice) undo(flow uint32, e *[2]entry, cause error) error {
	for i := range e {
		_ = s.objs.Verdicts.Delete(unsafe.Pointer(&e[i].index))
	}
	for i := range e {
		_ = kick(int(e[i].fd)) // takes the socket's lock: a run that began before has ended
	}
	moved := false
	for i := range e {
		h := s.Direction(e[i].index)
		moved = moved || h.Redirected() > 0 || h.Passed() > 0
	}
	for i := range e {
		_ = s.objs.Targets.Delete(unsafe.Pointer(&e[i].index))
	}
	s.Remove(flow)
	if moved {
		return fmt.Errorf("%w (%w)", cause, ErrMoved)
	}
	return cause
}

// Remove deletes the records of a flow's sockets. The sockets leave the maps
// by being closed, and only so: deleting one would lose what waits in it.
func (s *Splice) Remove(flow uint32) {
	for i := range s.cookies[flow] {
		cookie := s.cookies[flow][i]
		if cookie != 0 {
			_ = s.objs.Indices.Delete(unsafe.Pointer(&cookie)) // not there: just as well
			s.cookies[flow][i] = 0
		}
	}
}
