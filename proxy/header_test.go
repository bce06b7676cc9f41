// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"math/rand/v2"
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
		{"\r\n\r\n\x00\r\nQUIT\n\x20\xff\x00\x00", "", "", 16, nil},
		{"\r\n\r\n\x00\r\nQUIT\n\x21\x12\x00\x0cabcdefghijkl", "", "", 28, nil},
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

// TestHeaderIsJudgedEarly: the last byte of each is the one that spoils it.
func TestHeaderIsJudgedEarly(t *testing.T) {
	const v2 = "\r\n\r\n\x00\r\nQUIT\n"
	for _, in := range []string{
		"\x00", "G", "\n", "\r\r", "PROXZ", "PROXYS", "PROXY I", "PROXY TCP5", "PROXY TCP4\r", "PROXY TCP ",
		"PROXY UNKNOWNS", "PROXY UNKNOWN\rx", "PROXY TCP4  ", "PROXY TCP4 1:", "PROXY TCP4 01", "PROXY TCP4 256", "PROXY TCP4 1.2.3.4.",
		"PROXY TCP4 1.2.3 ", "PROXY TCP4 1.2.3.4 1.2.3.4 65536", "PROXY TCP4 1.2.3.4 1.2.3.4  ", "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 ",
		"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\r", "PROXY TCP4 1.2.3.4 1.2.3.4 1\r", "PROXY TCP4 1.2.3.4 1.2.3.4 1 \r",
		"PROXY TCP6 1.", "PROXY TCP6 12345", "PROXY TCP6 :a", "PROXY TCP6 1::2::", "PROXY TCP6 1:2:3:4:5:6:7:8:", "PROXY TCP6 ::256.",
		"PROXY TCP6 fe80::1%", "PROXY UNKNOWN " + strings.Repeat("x", 92),
		v2 + "\x31", v2 + "\x22", v2 + "\x21\x41", v2 + "\x21\x13", v2 + "\x20\x00\x10", v2 + "\x21\x11\x00\x0b", v2 + "\x21\x21\x00\x23",
	} {
		if _, _, _, err := parseHeader([]byte(in[:len(in)-1])); err != errShortHeader {
			t.Errorf("%q: %v without its last byte", in, err)
		}
		if _, _, _, err := parseHeader([]byte(in)); err != errBadHeader {
			t.Errorf("%q: %v", in, err)
		}
	}
}

// TestHeaderPrefixes: whatever begins a header is short of one. The other
// direction, that what is short of a header begins one, is judged's.
func TestHeaderPrefixes(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	v4 := func() netip.Addr {
		return netip.AddrFrom4([4]byte{byte(random.Uint32()), byte(random.Uint32()), byte(random.Uint32()), byte(random.Uint32())})
	}
	v6 := func() string {
		var b [16]byte
		for i := range b {
			if random.IntN(3) > 0 {
				b[i] = byte(random.Uint32())
			}
		}
		a := netip.AddrFrom16(b)
		switch random.IntN(4) {
		case 0:
			return a.StringExpanded()
		case 1: // an IPv4 address at the end
			return fmt.Sprintf("%x::%x:%s", random.IntN(1<<16), random.IntN(1<<16), v4())
		case 2:
			return "::" + v4().String()
		}
		return a.String()
	}
	for range 200 {
		sp, dp := random.IntN(1<<16), random.IntN(1<<16)
		src, dst := netip.AddrPortFrom(v4(), uint16(sp)), netip.AddrPortFrom(v4(), uint16(dp))
		for _, head := range []string{
			fmt.Sprintf("PROXY TCP4 %s %s %d %d\r\n", src.Addr(), dst.Addr(), sp, dp),
			fmt.Sprintf("PROXY TCP6 %s %s %d %d\r\n", v6(), v6(), sp, dp),
			"PROXY UNKNOWN" + strings.Repeat(" \rx", random.IntN(30)) + "\r\n",
			string(appendV2(nil, src, dst)),
			string(appendV2(nil, netip.MustParseAddrPort("[::1]:1"), netip.MustParseAddrPort("[fd00::1]:2"))),
		} {
			if len(head) > maxV1Header {
				continue
			}
			if _, _, n, err := parseHeader([]byte(head)); n != len(head) || err != nil {
				t.Fatalf("%q: %d %v", head, n, err)
			}
			judged(t, []byte(head))
			// One byte that isn't what it was.
			b := []byte(head)
			b[random.IntN(len(b))] = "\x00 \r\n:.0129afgT\xff"[random.IntN(15)]
			judged(t, b)
		}
	}
}

// judged checks that b is judged at the first byte at which that can be done:
// all before it is the beginning of a header, and all after it gets the same
// verdict.
func judged(t *testing.T, b []byte) {
	t.Helper()
	short := -1 // the longest beginning that is short
	for i := range len(b) + 1 {
		_, _, n, err := parseHeader(b[:i])
		if err == errShortHeader {
			short = i
			continue
		}
		for j := i; j <= len(b); j++ {
			if _, _, m, again := parseHeader(b[:j]); again != err || m != n {
				t.Fatalf("%q: %d %v, but %q: %d %v", b[:i], n, err, b[:j], m, again)
			}
		}
		if err == nil && n != i {
			t.Fatalf("%q: %d", b[:i], n)
		}
		break
	}
	if short >= 0 && !canEnd(b[:short]) {
		t.Fatalf("nothing makes a header of %q", b[:short])
	}
}

// canEnd looks for what makes a header of b, a byte at a time: where each
// verdict is right, any byte that isn't refused leads on, and those that are
// tried first lead to an end.
func canEnd(b []byte) bool {
	b = append([]byte(nil), b...)
	for len(b) <= maxHeader {
		next := -1
		for i := range 256 + 10 {
			c := byte(i - 10)
			if i < 10 {
				c = "\n\r\x00 0:.U T"[i]
			}
			_, _, _, err := parseHeader(append(b, c))
			if err == nil {
				return true
			}
			if err == errShortHeader {
				next = int(c)
				break
			}
		}
		if next < 0 {
			return false
		}
		b = append(b, byte(next))
	}
	return false
}

// FuzzParseHeader: never a panic, never more consumed than given, each verdict
// at the first byte that allows it, and what we write ourselves is read back.
func FuzzParseHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\n"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add(appendV2(nil, netip.MustParseAddrPort("[fd00::1]:1"), netip.MustParseAddrPort("[fd00::2]:2")))
	f.Fuzz(func(t *testing.T, b []byte) {
		judged(t, b)
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
