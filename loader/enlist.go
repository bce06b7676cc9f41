// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"unsafe"

	"github.com/cilium/ebpf"

	"sluice/bpf"
)

// Leg is one of a session's two connections, by the addresses that the host's
// socket has.
type Leg struct{ Peer, Local netip.AddrPort }

// Refusal is why a pair of sockets can't be forwarded.
type Refusal uint8

// The refusals, as in bpf/forward_maps.h.
const (
	Fits          Refusal = iota
	NoSocket              // not found, or not this host's TCP
	NotConnected          // in a state that has no place here
	LocalClient           // its packets never pass a device
	LocalBackend          // likewise
	NoDevice              // packets come by a device that isn't hooked, or go by another
	Xfrm                  // a policy of IPsec applies
	OneTimestamps         // one leg has them
	OneECN                // likewise
	SegmentSize           // one side may send segments that the other can't take
	WindowScale           // a window of one side can't be said in the other's unit
	KeyTaken              // another flow has the addresses
	OutOfOrder            // somebody holds bytes, or numbers don't add up
	OneFamily             // IPv4 on one leg, IPv6 on the other
	refusals
)

// orderSize is struct flow_order of bpf/forward_enlist.h behind a link header.
const (
	linkHeader = 14
	orderSize  = linkHeader + 2*int(unsafe.Sizeof(bpf.ForwardFlowKey{})) + 8
)

// Enlist registers the sockets of two connections, between which userspace holds
// no byte, under a number from Reserve. With arm the next packet that finds
// nothing under way is the first that is forwarded; else Flow.Arm says from when
// on. It is to be called in the network namespace of the sockets. After a refusal
// nothing has changed but that the number is to be released.
func (f *Forward) Enlist(flow uint32, client, backend Leg, arm bool) (Refusal, error) {
	state := stateWatched
	if arm {
		state = stateArmed
	}
	return f.order(f.objs.Enlist, flow, client, backend, state)
}

// Verify says whether the sockets of a flow that was cut have taken nothing since:
// then they can be let go. It is to be called a moment after the cut.
func (f *Forward) Verify(flow uint32, client, backend Leg) (bool, error) {
	why, err := f.order(f.objs.Verify, flow, client, backend, 0)
	return why == Fits, err
}

// order runs a program on an order.
func (f *Forward) order(p *ebpf.Program, flow uint32, client, backend Leg, state uint32) (Refusal, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.buf[linkHeader:linkHeader]
	b = appendKey(b, client)
	b = appendKey(b, backend)
	b = binary.NativeEndian.AppendUint32(b, flow)
	binary.NativeEndian.AppendUint32(b, state)
	ret, err := p.Run(&ebpf.RunOptions{Data: f.buf, Repeat: 1})
	if err != nil {
		return OutOfOrder, fmt.Errorf("offload: running a program on a pair of sockets: %w", err)
	}
	if ret >= uint32(refusals) {
		return OutOfOrder, fmt.Errorf("offload: a program answered %d: the bindings are stale", ret)
	}
	return Refusal(ret), nil
}

// appendKey is the key of the packets that come from the leg's peer.
func appendKey(b []byte, l Leg) []byte {
	for _, a := range []netip.AddrPort{l.Peer, l.Local} {
		ip := a.Addr().As16()
		b = append(b, ip[:]...)
	}
	b = binary.BigEndian.AppendUint16(b, l.Peer.Port())
	return binary.BigEndian.AppendUint16(b, l.Local.Port())
}
