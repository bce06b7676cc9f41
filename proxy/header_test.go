// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParseHeader(t *testing.T) {
	a := netip.MustParseAddrPort
	tests := []struct {
		in       string
		src, dst string
		n        int
		err      error
	}{
		{"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\nrest", "1.2.3.4:9", "5.6.7.8:10", 33, nil},
		{"PROXY TCP6 ::1 fd00::1 9 10\r\n", "[::1]:9", "[fd00::1]:10", 29, nil},
		{"PROXY UNKNOWN whatever\r\n", "", "", 24, nil},
		{"PROXY", "", "", 0, errShortHeader},
		{"P", "", "", 0, errShortHeader},
		{"PROXY TCP4 1.2.3.4 5.6.7.8 9 10", "", "", 0, errShortHeader},
		{"PROXY TCP4 1.2.3.4 5.6.7.8 9 70000\r\n", "", "", 0, errBadHeader},
		{"PROXY TCP4 1.2.3.4 5.6.7.8 +9 10\r\n", "", "", 0, errBadHeader},
		{"PROXY TCP4 ::1 ::1 9 10\r\n", "", "", 0, errBadHeader},
		{"PROXY TCP6 fe80::1%eth0 ::1 9 10\r\n", "", "", 0, errBadHeader},
		{"PROXY UDP4 1.2.3.4 5.6.7.8 9 10\r\n", "", "", 0, errBadHeader},
		{"PROXY " + strings.Repeat("x", 101), "", "", 0, errBadHeader},
		{"GET / HTTP/1.1\r\n", "", "", 0, errBadHeader},
		{"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00", "", "", 0, errShortHeader},
		{"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00", "", "", 16, nil},
		{"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x04abcd", "", "", 0, errBadHeader},
		{"\r\n\r\n\x00\r\nQUIT\n\x31\x11\x00\x0c", "", "", 0, errBadHeader},
		{"\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff", "", "", 0, errBadHeader},
	}
	for _, tt := range tests {
		src, dst, n, err := parseHeader([]byte(tt.in))
		var ws, wd netip.AddrPort
		if tt.src != "" {
			ws, wd = a(tt.src), a(tt.dst)
		}
		if src != ws || dst != wd || n != tt.n || err != tt.err {
			t.Errorf("%q: %v %v %d %v", tt.in, src, dst, n, err)
		}
	}
}

// FuzzParseHeader: never a panic, never more consumed than given, and what we
// write ourselves is read back.
func FuzzParseHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\n"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add(appendV2(nil, netip.MustParseAddrPort("[fd00::1]:1"), netip.MustParseAddrPort("[fd00::2]:2")))
	f.Fuzz(func(t *testing.T, b []byte) {
		src, dst, n, err := parseHeader(b)
		if err != nil {
			if n != 0 || src.IsValid() {
				t.Fatal("an error, and a result")
			}
			return
		}
		if n <= 0 || n > len(b) || n > maxHeader {
			t.Fatalf("%d of %d bytes", n, len(b))
		}
		if !src.IsValid() || !dst.IsValid() {
			return
		}
		for _, out := range [][]byte{appendV1(nil, src, dst), appendV2(nil, src, dst)} {
			s, d, m, err := parseHeader(out)
			if err != nil || m != len(out) || s != src || d != dst {
				t.Fatalf("%q: %v %v %d %v", out, s, d, m, err)
			}
		}
	})
}
