// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"slices"
	"unicode/utf8"
)

const (
	upperHex = "0123456789ABCDEF"
	lowerHex = "0123456789abcdef"
)

// escapeText escapes dst[from:] as nginx does by default: `"`, `\`, bytes under
// 32 and over 126 become \xXX.
func escapeText(dst []byte, from int) []byte {
	bad := func(c byte) bool { return c < ' ' || c > '~' || c == '"' || c == '\\' }
	extra := 0
	for _, c := range dst[from:] {
		if bad(c) {
			extra += 3
		}
	}
	if extra == 0 {
		return dst
	}
	// From the back, so that nothing is overwritten before it was read.
	read := len(dst)
	dst = slices.Grow(dst, extra)[:read+extra]
	for write := len(dst); read > from; {
		read--
		c := dst[read]
		if !bad(c) {
			write--
			dst[write] = c
			continue
		}
		write -= 4
		dst[write], dst[write+1], dst[write+2], dst[write+3] = '\\', 'x', upperHex[c>>4], upperHex[c&15]
	}
	return dst
}

// escapeJSON makes dst[from:] fit for a JSON string, whatever its bytes: what
// isn't UTF-8 becomes U+FFFD.
func escapeJSON(dst []byte, from int) []byte {
	plain := true
	for _, c := range dst[from:] {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			plain = false
			break
		}
	}
	if plain {
		return dst
	}
	raw := string(dst[from:])
	dst = dst[:from]
	for i := 0; i < len(raw); {
		r, size := utf8.DecodeRuneInString(raw[i:])
		switch c := raw[i]; {
		case r == utf8.RuneError && size == 1:
			dst = append(dst, `\ufffd`...)
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < ' ' || c == 0x7f:
			dst = append(dst, '\\', 'u', '0', '0', lowerHex[c>>4], lowerHex[c&15])
		default:
			dst = append(dst, raw[i:i+size]...)
		}
		i += size
	}
	return dst
}
