// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

const (
	fin = 1 << iota
	syn
	rst
	psh
	ack
	urg
	ece
	cwr
)

// segment is a TCP packet, laid out by frame.
type segment struct {
	src, dst netip.AddrPort
	ttl      byte
	seq, ack uint32
	flags    byte
	ae       bool
	window   uint16
	urgent   uint16
	options  []byte // padded by who writes them
	payload  []byte
}

// frame is the packet behind a link header, with every checksum right.
func (s segment) frame() []byte {
	tcp := make([]byte, 20, 20+len(s.options)+len(s.payload))
	binary.BigEndian.PutUint16(tcp, s.src.Port())
	binary.BigEndian.PutUint16(tcp[2:], s.dst.Port())
	binary.BigEndian.PutUint32(tcp[4:], s.seq)
	binary.BigEndian.PutUint32(tcp[8:], s.ack)
	tcp[12] = byte(20+len(s.options)) / 4 << 4
	if s.ae {
		tcp[12] |= 1
	}
	tcp[13] = s.flags
	binary.BigEndian.PutUint16(tcp[14:], s.window)
	binary.BigEndian.PutUint16(tcp[18:], s.urgent)
	tcp = append(append(tcp, s.options...), s.payload...)
	binary.BigEndian.PutUint16(tcp[16:], ^sum16(tcp, pseudo(s.src.Addr(), s.dst.Addr(), 6, len(tcp))))
	return slices.Concat(ipHeader(s.src.Addr(), s.dst.Addr(), 6, s.ttl, len(tcp)), tcp)
}

// ipHeader is a link header and a network header in front of length bytes.
func ipHeader(src, dst netip.Addr, protocol, ttl byte, length int) []byte {
	b := make([]byte, linkHeader)
	if src.Is4() {
		b[12], b[13] = 8, 0
		ip := make([]byte, 20)
		ip[0], ip[6], ip[8], ip[9] = 0x45, 0x40, ttl, protocol
		binary.BigEndian.PutUint16(ip[2:], uint16(20+length))
		binary.BigEndian.PutUint16(ip[4:], 0x4321)
		copy(ip[12:], src.AsSlice())
		copy(ip[16:], dst.AsSlice())
		binary.BigEndian.PutUint16(ip[10:], ^sum16(ip, 0))
		return append(b, ip...)
	}
	b[12], b[13] = 0x86, 0xdd
	ip := make([]byte, 40)
	ip[0], ip[3], ip[6], ip[7] = 0x60, 0x77, protocol, ttl
	binary.BigEndian.PutUint16(ip[4:], uint16(length))
	copy(ip[8:], src.AsSlice())
	copy(ip[24:], dst.AsSlice())
	return append(b, ip...)
}

// sum16 is the one's complement sum of RFC 1071, as it is written there.
func sum16(b []byte, sum uint32) uint16 {
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// pseudo is the sum of a pseudo-header.
func pseudo(src, dst netip.Addr, protocol byte, length int) uint32 {
	b := append(src.AsSlice(), dst.AsSlice()...)
	return uint32(sum16(b, 0)) + uint32(protocol) + uint32(length)
}

// headers says where a frame's TCP or ICMP header begins, by its first network
// header.
func headers(b []byte) (v4 bool, l4 int) {
	if b[12] == 8 {
		return true, linkHeader + int(b[linkHeader]&15)*4
	}
	return false, linkHeader + 40
}

// sums says whether a frame's checksums are right, computed anew; and takes them out, so that the
// rest can be compared: a sum has two ways to say zero.
func sums(b []byte) bool {
	v4, l4 := headers(b)
	protocol, end := b[linkHeader+6], l4+int(binary.BigEndian.Uint16(b[linkHeader+4:]))
	var src, dst netip.Addr
	right := true
	if v4 {
		ip := b[linkHeader:l4]
		protocol, end = ip[9], linkHeader+int(binary.BigEndian.Uint16(ip[2:]))
		src, _ = netip.AddrFromSlice(ip[12:16])
		dst, _ = netip.AddrFromSlice(ip[16:20])
		right = sum16(ip, 0) == 0xffff
		ip[10], ip[11] = 0, 0
	} else {
		src, _ = netip.AddrFromSlice(b[linkHeader+8 : linkHeader+24])
		dst, _ = netip.AddrFromSlice(b[linkHeader+24 : linkHeader+40])
	}
	body, at := b[l4:end], 16
	start := pseudo(src, dst, protocol, len(body))
	if protocol != 6 {
		at = 2
		if v4 {
			start = 0
		}
	}
	right = right && sum16(body, start) == 0xffff
	body[at], body[at+1] = 0, 0
	return right
}

// timestamps is the option in its usual layout.
func timestamps(val, ecr uint32) []byte {
	b := []byte{1, 1, 8, 10}
	b = binary.BigEndian.AppendUint32(b, val)
	return binary.BigEndian.AppendUint32(b, ecr)
}

// sack is the option with these edges, without padding.
func sack(edges ...uint32) []byte {
	b := []byte{5, byte(2 + 4*len(edges))}
	for _, e := range edges {
		b = binary.BigEndian.AppendUint32(b, e)
	}
	return b
}

// padded puts an option where it is asked for, and ends the header at a multiple of four.
func padded(before int, options ...[]byte) []byte {
	b := slices.Concat(slices.Repeat([]byte{1}, before), slices.Concat(options...))
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}
