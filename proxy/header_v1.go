// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"net/netip"
	"strconv"
	"strings"
)

// v1Start begins a version 1 header, a line of at most maxV1Header bytes, its
// end included.
const (
	v1Start     = "PROXY "
	maxV1Header = 107
)

func parseV1(b []byte) (src, dst netip.AddrPort, n int, err error) {
	end := bytes.Index(b[:min(len(b), maxV1Header)], []byte("\r\n"))
	if end < 0 {
		if v1GoesOn(string(b)) {
			return src, dst, 0, errShortHeader
		}
		return src, dst, 0, errBadHeader
	}
	if src, dst, err = parseV1Line(string(b[:end])); err != nil {
		return src, dst, 0, err
	}
	return src, dst, end + len("\r\n"), nil
}

// parseV1Line reads a header without its end of line.
func parseV1Line(line string) (src, dst netip.AddrPort, err error) {
	f := strings.Split(line, " ")
	if len(f) >= 2 && f[1] == "UNKNOWN" {
		return src, dst, nil
	}
	if len(f) != 6 || f[1] != "TCP4" && f[1] != "TCP6" {
		return src, dst, errBadHeader
	}
	if src, err = addressOf(f[2], f[4], f[1] == "TCP4"); err != nil {
		return netip.AddrPort{}, dst, errBadHeader
	}
	if dst, err = addressOf(f[3], f[5], f[1] == "TCP4"); err != nil {
		return netip.AddrPort{}, netip.AddrPort{}, errBadHeader
	}
	return src, dst, nil
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

// v1GoesOn says whether something after b, which has no end of line yet, makes
// a header of it: it tries the shortest ends that fit where b stops.
func v1GoesOn(b string) bool {
	if len(b) < len(v1Start) {
		return true
	}
	kind, _, inFields := strings.Cut(b[len(v1Start):], " ")
	if !inFields {
		for _, k := range []string{"UNKNOWN\r", "TCP4", "TCP6"} {
			if strings.HasPrefix(k, kind) {
				return true
			}
		}
		return false
	}
	for _, tail := range v1Tails(kind, strings.Count(b, " ")-2) {
		whole := b + tail
		line, ends := strings.CutSuffix(whole, "\r\n")
		if !ends || len(whole) > maxV1Header {
			continue
		}
		if _, _, err := parseV1Line(line); err == nil {
			return true
		}
	}
	return false
}

// v1Tails are ends of a header that stops within a field after its kind:
// among them, for whatever there is of the field, the shortest that fits.
func v1Tails(kind string, field int) (tails []string) {
	ends := []string{"", "0"} // of a port
	var rest []string         // what comes after the field
	switch kind {
	case "UNKNOWN":
		return []string{"\n", "\r\n"}
	case "TCP4":
		rest = []string{" 0.0.0.0 0 0\r\n", " 0 0\r\n", " 0\r\n", "\r\n"}
		if field < 2 {
			ends = []string{"", "0", ".0", "0.0", ".0.0", "0.0.0", ".0.0.0", "0.0.0.0"}
		}
	case "TCP6":
		rest = []string{" :: 0 0\r\n", " 0 0\r\n", " 0\r\n", "\r\n"}
		if field < 2 {
			ends = []string{"", "0", ":", "::", ".0", "0.0", ".0.0", "0.0.0", ".0.0.0"}
		}
	}
	if field >= len(rest) {
		return nil
	}
	for _, e := range ends {
		tails = append(tails, e+rest[field])
	}
	if field == 3 {
		tails = append(tails, "\n")
	}
	return tails
}
