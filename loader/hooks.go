// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// place is where on a device a program runs.
type place uint8

const (
	ingress place = iota // on what it receives
	egress               // on what it sends
)

func (p place) tcx() ebpf.AttachType {
	if p == egress {
		return ebpf.AttachTCXEgress
	}
	return ebpf.AttachTCXIngress
}

func (p place) clsact() uint32 {
	if p == egress {
		return netlink.HANDLE_MIN_EGRESS
	}
	return netlink.HANDLE_MIN_INGRESS
}

// hooks run a program at one place of devices. Methods are called by one
// goroutine at a time, in the network namespace of the devices.
type hooks interface {
	// attach has the program run on a device, before all others if it can.
	attach(index int) error
	// detach undoes attach; a device that is gone is no error.
	detach(index int) error
	// look says whether the program still runs there and, if one runs before it
	// that isn't of an instance of ours, which.
	look(index int) (there bool, before string, err error)
	// pins says whether what is pinned under this name is of these hooks.
	pins(name string) bool
	// leave is close for what is pinned, which runs on.
	leave() error
	close() error
}

// newHooks are those of p on ingress and, if it is to run, of o.Egress, which are nil
// else. After an error those that aren't nil are to be closed too.
func newHooks(p *ebpf.Program, o DevicesOptions) (in, out hooks, err error) {
	own, err := sweepStubs() // also with tcx: it may have been another way before
	if err != nil {
		return nil, nil, err
	}
	have, err := haveTCX()
	if err != nil {
		return nil, nil, err
	}
	if have && !o.Clsact {
		h, err := newTCX(p, ingress, o.Pin)
		if err != nil || o.Egress == nil {
			return orNil(h, err), nil, err
		}
		e, err := newTCX(o.Egress, egress, o.Pin)
		return h, orNil(e, err), err
	}
	h, err := newClsact(p, ingress, have, own, o.Pin)
	if err != nil || o.Egress == nil {
		return orNil(h, err), nil, err
	}
	e, err := newClsact(o.Egress, egress, have, own, o.Pin)
	if err == nil {
		e.ingress = h.id
	}
	return h, orNil(e, err), err
}

// orNil keeps a nil pointer from becoming an interface that isn't nil.
func orNil[T hooks](h T, err error) hooks {
	if err != nil {
		return nil
	}
	return h
}

// haveTCX asks the loopback device, which every namespace has: a kernel without
// tcx doesn't know the attach type (EINVAL).
func haveTCX() (bool, error) {
	_, err := link.QueryPrograms(link.QueryOptions{Target: 1, Attach: ebpf.AttachTCXIngress})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, ebpf.ErrNotSupported) {
		return false, nil
	}
	return err == nil, err
}
