// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"strconv"
	"strings"
	"time"
)

// maxDuration is the longest that sluice takes.
const maxDuration = 10 * 365 * 24 * time.Hour

// nginxTime reads a time as ngx_parse_time does: numbers with units in falling
// order, a number alone in seconds.
func nginxTime(s string) (time.Duration, bool) {
	units := []struct {
		suffix string
		is     time.Duration
	}{
		{"y", 365 * 24 * time.Hour}, {"M", 30 * 24 * time.Hour}, {"w", 7 * 24 * time.Hour}, {"d", 24 * time.Hour},
		{"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}, {"ms", time.Millisecond},
	}
	if s == "" {
		return 0, false
	}
	var sum time.Duration
	for s != "" {
		digits := len(s) - len(strings.TrimLeft(s, "0123456789"))
		n, err := strconv.ParseInt(s[:digits], 10, 64)
		if err != nil {
			return 0, false
		}
		s = s[digits:]
		letters := len(s) - len(strings.TrimLeft(s, "yMwdhms"))
		unit, is := s[:letters], time.Second
		s = strings.TrimLeft(s[letters:], " ")
		if unit == "" && s != "" {
			return 0, false
		}
		for i, u := range units {
			if u.suffix == unit {
				is, units = u.is, units[i+1:]
				unit = ""
				break
			}
		}
		if unit != "" || n > int64(maxDuration/is) {
			return 0, false
		}
		if sum += time.Duration(n) * is; sum > maxDuration {
			return 0, false
		}
	}
	return sum, true
}

// nginxSize reads bytes, with k, m or g.
func nginxSize(s string) (int64, bool) {
	factor := int64(1)
	if s != "" {
		switch s[len(s)-1] {
		case 'k', 'K':
			factor = 1 << 10
		case 'm', 'M':
			factor = 1 << 20
		case 'g', 'G':
			factor = 1 << 30
		}
	}
	if factor > 1 {
		s = s[:len(s)-1]
	}
	n, ok := number(s)
	if !ok || n > 1<<40/factor {
		return 0, false
	}
	return n * factor, true
}

// number reads a whole number in decimal, at most what fits a file of sluice.
func number(s string) (int64, bool) {
	n, err := strconv.ParseUint(s, 10, 41)
	return int64(n), err == nil && !strings.HasPrefix(s, "+")
}

// count reads a number from least to most; it is 0 if it isn't one.
func count(s string, least, most int64) (int, bool) {
	n, ok := number(s)
	if !ok || n < least || n > most {
		return 0, false
	}
	return int(n), true
}

// option splits name=value.
func option(s string) (name, value string) {
	name, value, _ = strings.Cut(s, "=")
	return name, value
}
