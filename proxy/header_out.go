// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// appendV1 writes a version 1 header; UNKNOWN if an address is missing.
func appendV1(b []byte, src, dst netip.AddrPort) []byte {
	if !src.IsValid() || !dst.IsValid() {
		return append(b, "PROXY UNKNOWN\r\n"...)
	}
	family := "TCP4"
	s, d := src.Addr(), dst.Addr()
	if s.Is6() || d.Is6() {
		family = "TCP6"
		s, d = netip.AddrFrom16(s.As16()), netip.AddrFrom16(d.As16())
	}
	return fmt.Appendf(b, "PROXY %s %s %s %d %d\r\n", family, s, d, src.Port(), dst.Port())
}

// appendV2 writes a version 2 header; LOCAL if an address is missing.
func appendV2(b []byte, src, dst netip.AddrPort) []byte {
	b = append(b, v2Signature[:]...)
	if !src.IsValid() || !dst.IsValid() {
		return append(b, 0x20, 0, 0, 0)
	}
	if src.Addr().Is4() && dst.Addr().Is4() {
		s, d := src.Addr().As4(), dst.Addr().As4()
		b = append(b, 0x21, 0x11, 0, 12)
		b = append(b, s[:]...)
		b = append(b, d[:]...)
	} else {
		s, d := src.Addr().As16(), dst.Addr().As16()
		b = append(b, 0x21, 0x21, 0, 36)
		b = append(b, s[:]...)
		b = append(b, d[:]...)
	}
	b = binary.BigEndian.AppendUint16(b, src.Port())
	return binary.BigEndian.AppendUint16(b, dst.Port())
}
