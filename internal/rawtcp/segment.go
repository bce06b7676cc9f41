// SPDX-License-Identifier: Apache-2.0

package rawtcp

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Flags of a segment.
const (
	FlagRST = 0x04
	FlagACK = 0x10
)

// Segment is a TCP segment without payload or options. Both addresses are of one
// family.
type Segment struct {
	From, To netip.AddrPort
	Seq, Ack uint32
	Window   uint16
	Flags    byte
}

const (
	tcpHeader = 20
	hops      = 64
)

// Append appends the segment as a packet, from its network header on.
func (g Segment) Append(b []byte) []byte {
	from, to := g.From.Addr().AsSlice(), g.To.Addr().AsSlice()
	start := len(b)
	if g.To.Addr().Is4() {
		b = append(b, 0x45, 0, 0, 20+tcpHeader, 0, 0, 0x40, 0, hops, unix.IPPROTO_TCP, 0, 0) // don't fragment
		b = append(append(b, from...), to...)
		binary.BigEndian.PutUint16(b[start+10:], ^sum(b[start:], 0))
	} else {
		b = append(b, 0x60, 0, 0, 0, 0, tcpHeader, unix.IPPROTO_TCP, hops)
		b = append(append(b, from...), to...)
	}
	at := len(b)
	b = binary.BigEndian.AppendUint16(b, g.From.Port())
	b = binary.BigEndian.AppendUint16(b, g.To.Port())
	b = binary.BigEndian.AppendUint32(b, g.Seq)
	b = binary.BigEndian.AppendUint32(b, g.Ack)
	b = append(b, tcpHeader/4<<4, g.Flags)
	b = binary.BigEndian.AppendUint16(b, g.Window)
	b = append(b, 0, 0, 0, 0)
	// The pseudo-header: addresses, length, protocol.
	pseudo := sum(from, uint32(sum(to, tcpHeader+unix.IPPROTO_TCP)))
	binary.BigEndian.PutUint16(b[at+16:], ^sum(b[at:], uint32(pseudo)))
	return b
}

// sum is the one's complement sum of b, of even length, and of what came before.
func sum(b []byte, before uint32) uint16 {
	for i := 0; i < len(b); i += 2 {
		before += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for before > 0xffff {
		before = before&0xffff + before>>16
	}
	return uint16(before)
}
