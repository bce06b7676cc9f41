// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
)

// The PROXY protocol (haproxy's doc/proxy-protocol.txt, versions 1 and 2),
// over TCP.

const (
	// maxHeader bounds an incoming header, as nginx does (NGX_PROXY_PROTOCOL_MAX_HEADER).
	maxHeader = 4096
	// v2Fixed is the part of a version 2 header that is always there.
	v2Fixed = 16
)

var v2Signature = [12]byte{'\r', '\n', '\r', '\n', 0, '\r', '\n', 'Q', 'U', 'I', 'T', '\n'}

var (
	errShortHeader = errors.New("the header isn't complete yet")
	errBadHeader   = errors.New("not a PROXY header")
)

// parseHeader reads a header from the start of b. n is its length. src and
// dst are invalid where the header names no IP addresses of a stream (UNKNOWN,
// LOCAL, unix, datagrams). errShortHeader: some bytes after b make a header of
// it; errBadHeader: none do, so nobody waits for more.
func parseHeader(b []byte) (src, dst netip.AddrPort, n int, err error) {
	if m := min(len(b), len(v2Signature)); bytes.Equal(b[:m], v2Signature[:m]) {
		return parseV2(b)
	}
	if m := min(len(b), len(v1Start)); string(b[:m]) == v1Start[:m] {
		return parseV1(b)
	}
	return src, dst, 0, errBadHeader
}

// parseV2 judges each byte as soon as it is there.
func parseV2(b []byte) (src, dst netip.AddrPort, n int, err error) {
	const local = 0
	command := byte(local)
	if len(b) > 12 {
		command = b[12] & 0x0f
		if b[12]>>4 != 2 || command > 1 {
			return src, dst, 0, errBadHeader
		}
	}
	// LOCAL is the sender speaking for itself: the rest is of no meaning.
	var family, transport byte
	if len(b) > 13 && command != local {
		family, transport = b[13]>>4, b[13]&0x0f
		if family > 3 || transport > 2 {
			return src, dst, 0, errBadHeader
		}
	}
	if len(b) > 14 && v2Fixed+int(b[14])<<8 > maxHeader {
		return src, dst, 0, errBadHeader
	}
	if len(b) < v2Fixed {
		return src, dst, 0, errShortHeader
	}
	n = v2Fixed + int(binary.BigEndian.Uint16(b[14:]))
	least := v2Fixed
	const stream = 1 // of other transports nginx takes no address either
	switch {
	case transport == stream && family == 1:
		least += 12
	case transport == stream && family == 2:
		least += 36
	}
	if n > maxHeader || n < least {
		return src, dst, 0, errBadHeader
	}
	if len(b) < n {
		return src, dst, 0, errShortHeader
	}
	p := b[v2Fixed:n]
	switch least {
	case v2Fixed + 12:
		src = netip.AddrPortFrom(netip.AddrFrom4([4]byte(p[0:4])), binary.BigEndian.Uint16(p[8:]))
		dst = netip.AddrPortFrom(netip.AddrFrom4([4]byte(p[4:8])), binary.BigEndian.Uint16(p[10:]))
	case v2Fixed + 36:
		src = netip.AddrPortFrom(netip.AddrFrom16([16]byte(p[0:16])).Unmap(), binary.BigEndian.Uint16(p[32:]))
		dst = netip.AddrPortFrom(netip.AddrFrom16([16]byte(p[16:32])).Unmap(), binary.BigEndian.Uint16(p[34:]))
	}
	return src, dst, n, nil
}
