// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"unsafe"

	"sluice/bpf"
)

// Sides of a flow: who a packet comes from.
const (
	ClientSide = iota
	BackendSide
)

// Flow is a flow's record, in memory shared with the forward program. A *Flow is
// valid until Forward.Close.
type Flow struct{ raw bpf.ForwardFlowRecord }

// enum flow_state of bpf/forward_maps.h.
const (
	stateFree uint32 = iota
	stateWatched
	stateArmed
	stateForwarded
	stateEnded
	stateReset
)

// enum flow_flags of bpf/forward_maps.h.
const (
	finClient       = 1 << 2
	finackClient    = 1 << 4
	firstFinBackend = 1 << 8
	goneClient      = 1 << 9
)

// byResetOfClient is BY_RESET_OF_CLIENT of bpf/forward_maps.h; that of the backend is
// the next.
const byResetOfClient = 2

// Arm has the next packet that finds nothing under way be the first forwarded one.
func (f *Flow) Arm() bool { return f.change(stateWatched, stateArmed) }

// Disarm leaves the packets to the sockets. False: they are forwarded already, and
// the sockets are stale.
func (f *Flow) Disarm() bool {
	return f.change(stateArmed, stateWatched) || f.state() == stateWatched
}

// Cut says whether packets are forwarded, or were before the flow ended.
func (f *Flow) Cut() bool { return f.state() >= stateForwarded }

// Forwarded says whether packets are forwarded and neither both ends of stream are
// acknowledged nor a side has reset the flow.
func (f *Flow) Forwarded() bool { return f.state() == stateForwarded }

// Ended says whether both ends of stream are acknowledged or a side has reset the
// flow.
func (f *Flow) Ended() bool { return f.state() == stateEnded }

// Reset has what comes from now on dropped. Userspace answers what Asked tells.
func (f *Flow) Reset() {
	_ = f.change(stateForwarded, stateReset) || f.change(stateEnded, stateReset)
}

func (f *Flow) state() uint32 { return atomic.LoadUint32(&f.raw.State) }

func (f *Flow) change(from, to uint32) bool {
	return atomic.CompareAndSwapUint32(&f.raw.State, from, to)
}

// withdraw has the program leave all packets alone.
func (f *Flow) withdraw() { atomic.StoreUint32(&f.raw.State, stateFree) }

// clear makes room for the next flow. Only while no key leads here.
func (f *Flow) clear() { f.raw = bpf.ForwardFlowRecord{} }

// Flags are the program's.
func (f *Flow) Flags() uint32 { return atomic.LoadUint32(&f.raw.Flags) }

// Fin says whether this side's end of stream has been seen, and whether the other
// has acknowledged it.
func (f *Flow) Fin(side int) (seen, acknowledged bool) {
	flags := f.Flags()
	return flags&(finClient<<side) != 0, flags&(finackClient<<side) != 0
}

// FirstFin is the side whose end of stream came first; ok false: none has come.
func (f *Flow) FirstFin() (side int, ok bool) {
	flags := f.Flags()
	if flags&firstFinBackend != 0 {
		return BackendSide, true
	}
	return ClientSide, flags&(finClient|finClient<<1) != 0
}

// WasReset is the side that has reset the flow; ok false: none.
func (f *Flow) WasReset() (side int, ok bool) {
	switch atomic.LoadUint32(&f.raw.End) {
	case byResetOfClient:
		return ClientSide, true
	case byResetOfClient + BackendSide:
		return BackendSide, true
	}
	return ClientSide, false
}

// Delivered is how many payload bytes of this side the other has acknowledged since
// the cut.
func (f *Flow) Delivered(side int) uint64 {
	o := &f.raw.Side[1-side]
	n := atomic.LoadUint64(&o.Acked) - o.Base
	if flags := f.Flags(); flags&(finackClient<<side) != 0 && f.finAfterCut(side) && n > 0 {
		n--
	}
	return n
}

// Relayed is how many payload bytes of this side userspace has read between registering
// and the cut, for flows that have been cut.
func (f *Flow) Relayed(side int) uint64 {
	return uint64(f.raw.Side[side].Cut - f.raw.Read[side])
}

// finAfterCut says whether this side's end of stream was forwarded, not relayed.
func (f *Flow) finAfterCut(side int) bool {
	s := &f.raw.Side[side]
	return atomic.LoadUint32(&s.Fin) != s.Cut
}

// Unacknowledged says whether this side has sent what the other hasn't acknowledged.
func (f *Flow) Unacknowledged(side int) bool {
	s, o := &f.raw.Side[side], &f.raw.Side[1-side]
	return int32(atomic.LoadUint32(&s.Next)+s.SeqAdd-uint32(atomic.LoadUint64(&o.Acked))) > 0
}

// LastData is when a side last sent a new payload byte, CLOCK_MONOTONIC in ns; 0: not
// since the cut.
func (f *Flow) LastData() int64 {
	return int64(max(atomic.LoadUint64(&f.raw.Side[0].DataNs), atomic.LoadUint64(&f.raw.Side[1].DataNs)))
}

// LastSeen is when this side's last packet came.
func (f *Flow) LastSeen(side int) int64 { return int64(atomic.LoadUint64(&f.raw.Side[side].SeenNs)) }

// FirstByte is when the backend's first payload byte after the cut came; 0: not yet.
func (f *Flow) FirstByte() int64 { return int64(atomic.LoadUint64(&f.raw.FirstNs)) }

// CutAt is when the flow was cut.
func (f *Flow) CutAt() int64 { return int64(atomic.LoadUint64(&f.raw.CutNs)) }

// Packets is how many have come from this side since the cut.
func (f *Flow) Packets(side int) uint64 { return atomic.LoadUint64(&f.raw.Side[side].Packets) }

// ResetPoint is where a reset of this side has to stand: in the numbers that this
// side expects, between its last acknowledgement and what was last sent to it.
type ResetPoint struct {
	From, To   netip.AddrPort // the host's own address, and the side's
	Acked, Top uint32
	Asked      uint32 // what the side's last packet after Flow.Reset acknowledges
	Ack        uint32 // what the other side has acknowledged, in this side's own numbers
}

// ResetPoint says where a reset sent to this side has to stand.
func (f *Flow) ResetPoint(side int) ResetPoint {
	s, o := &f.raw.Side[side], &f.raw.Side[1-side]
	// Packets of the other side go to this one: those are its addresses.
	return ResetPoint{
		From: netip.AddrPortFrom(addr(&o.Saddr), ntohs(o.Sport)), To: netip.AddrPortFrom(addr(&o.Daddr), ntohs(o.Dport)),
		Acked: uint32(atomic.LoadUint64(&s.Acked)),
		Top:   atomic.LoadUint32(&o.Next) + o.SeqAdd,
		Asked: atomic.LoadUint32(&s.Asked),
		Ack:   uint32(atomic.LoadUint64(&o.Acked)) + o.AckAdd,
	}
}

// key is that of the packets that come from this side.
func (f *Flow) key(side int) bpf.ForwardFlowKey {
	o := &f.raw.Side[1-side]
	return bpf.ForwardFlowKey{Saddr: o.Daddr, Daddr: o.Saddr, Sport: o.Dport, Dport: o.Sport}
}

// Leg is the connection of this side as the host's socket had it.
func (f *Flow) Leg(side int) Leg {
	o := &f.raw.Side[1-side]
	return Leg{
		Peer:  netip.AddrPortFrom(addr(&o.Daddr), ntohs(o.Dport)),
		Local: netip.AddrPortFrom(addr(&o.Saddr), ntohs(o.Sport)),
	}
}

// SetDevice says that what comes from this side leaves by another device from now on.
func (f *Flow) SetDevice(side int, ifindex uint32) {
	atomic.StoreUint32(&f.raw.Side[side].Ifindex, ifindex)
}

// Device is the one by which what comes from this side leaves.
func (f *Flow) Device(side int) uint32 { return atomic.LoadUint32(&f.raw.Side[side].Ifindex) }

// addr is an address of the program's, IPv4 as such.
func addr(a *[4]uint32) netip.Addr {
	return netip.AddrFrom16(*(*[16]byte)(unsafe.Pointer(a))).Unmap()
}

func ntohs(n uint16) uint16 {
	b := *(*[2]byte)(unsafe.Pointer(&n))
	return uint16(b[0])<<8 | uint16(b[1])
}

// String is all of the record, for who looks for a fault.
func (f *Flow) String() string {
	s := fmt.Sprintf("state %d, flags %#x, cut %d ns, ended %d ns", f.state(), f.Flags(), f.CutAt(), atomic.LoadUint64(&f.raw.EndedNs))
	for i, name := range []string{"client", "backend"} {
		d := &f.raw.Side[i]
		s += fmt.Sprintf("; %s: cut %d, next %d, fin %d, acked %d, base %d, edge %d, delivered %d, seq_add %d, packets %d, data %d ns, seen %d ns",
			name, d.Cut, d.Next, d.Fin, uint32(d.Acked), uint32(d.Base), d.Edge, f.Delivered(i), d.SeqAdd, d.Packets, d.DataNs, d.SeenNs)
	}
	return s
}
