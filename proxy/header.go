// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// The PROXY protocol (haproxy's doc/proxy-protocol.txt, versions 1 and 2),
// over TCP.

const (
	// maxHeader bounds an incoming header, as nginx does (NGX_PROXY_PROTOCOL_MAX_HEADER).
	maxHeader   = 4096
	maxV1Header = 107
)

var v2Signature = [12]byte{'\r', '\n', '\r', '\n', 0, '\r', '\n', 'Q', 'U', 'I', 'T', '\n'}

var (
	errShortHeader = errors.New("the header isn't complete yet")
	errBadHeader   = errors.New("not a PROXY header")
)

// parseHeader reads a header from the start of b. n is its length. src and
// dst are invalid where the header names no IP addresses (UNKNOWN, LOCAL,
// unix). errShortHeader: b is the beginning of one; errBadHeader: it isn't.
func parseHeader(b []byte) (src, dst netip.AddrPort, n int, err error) {
	if m := min(len(b), len(v2Signature)); bytes.Equal(b[:m], v2Signature[:m]) {
		return parseV2(b)
	}
	const v1 = "PROXY "
	if m := min(len(b), len(v1)); string(b[:m]) == v1[:m] {
		return parseV1(b)
	}
	return src, dst, 0, errBadHeader
}

func parseV1(b []byte) (src, dst netip.AddrPort, n int, err error) {
	end := bytes.Index(b[:min(len(b), maxV1Header)], []byte("\r\n"))
	if end < 0 {
		if len(b) >= maxV1Header {
			return src, dst, 0, errBadHeader
		}
		return src, dst, 0, errShortHeader
	}
	f := strings.Split(string(b[:end]), " ")
	n = end + 2
	if len(f) >= 2 && f[1] == "UNKNOWN" {
		return src, dst, n, nil
	}
	if len(f) != 6 || f[1] != "TCP4" && f[1] != "TCP6" {
		return src, dst, 0, errBadHeader
	}
	if src, err = addressOf(f[2], f[4], f[1] == "TCP4"); err != nil {
		return netip.AddrPort{}, dst, 0, errBadHeader
	}
	if dst, err = addressOf(f[3], f[5], f[1] == "TCP4"); err != nil {
		return netip.AddrPort{}, netip.AddrPort{}, 0, errBadHeader
	}
	return src, dst, n, nil
}

func addressOf(ip, port string, v4 bool) (netip.AddrPort, error) {
	a, err := netip.ParseAddr(ip)
	if err != nil || a.Is4() != v4 || a.Zone() != "" {
		return netip.AddrPort{}, errBadHeader
	}
	if port == "" || len(port) > 5 || strings.Trim(port, "0123456789") != "" {
		return netip.AddrPort{}, errBadHeader
	}
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}, errBadHeader
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), nil
}

func parseV2(b []byte) (src, dst netip.AddrPort, n int, err error) {
	if len(b) < 16 {
		return src, dst, 0, errShortHeader
	}
	n = 16 + int(binary.BigEndian.Uint16(b[14:]))
	command := b[12] & 0x0f
	if b[12]>>4 != 2 || command > 1 || n > maxHeader {
		return src, dst, 0, errBadHeader
	}
	if len(b) < n {
		return src, dst, 0, errShortHeader
	}
	if command == 0 { // LOCAL: the sender speaks for itself
		return src, dst, n, nil
	}
	p := b[16:n]
	switch b[13] >> 4 {
	case 1:
		if len(p) < 12 {
			return src, dst, 0, errBadHeader
		}
		src = netip.AddrPortFrom(netip.AddrFrom4([4]byte(p[0:4])), binary.BigEndian.Uint16(p[8:]))
		dst = netip.AddrPortFrom(netip.AddrFrom4([4]byte(p[4:8])), binary.BigEndian.Uint16(p[10:]))
	case 2:
		if len(p) < 36 {
			return src, dst, 0, errBadHeader
		}
		src = netip.AddrPortFrom(netip.AddrFrom16([16]byte(p[0:16])).Unmap(), binary.BigEndian.Uint16(p[32:]))
		dst = netip.AddrPortFrom(netip.AddrFrom16([16]byte(p[16:32])).Unmap(), binary.BigEndian.Uint16(p[34:]))
	}
	return src, dst, n, nil
}

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
