// SPDX-License-Identifier: Apache-2.0

package config

import (
	"strconv"
	"strings"
)

// maxRate is far beyond any link, and far from the end of an int64.
const maxRate = 1 << 40

// unit is a suffix of a rate and what it multiplies by.
type unit struct {
	suffix string
	bytes  int64
}

func units() []unit { return []unit{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} }

// rate reads bytes a second: a whole number, or one with a unit.
func (d *decoder) rate(p pair, into *int64) { d.bytes(p, "bytes a second", into) }

// bytes reads a number of bytes, which of names: a whole number, or one with a unit.
func (d *decoder) bytes(p pair, of string, into *int64) {
	must := of + ", a whole number or one with KiB, MiB or GiB such as 10MiB, 0 for no limit"
	s, ok := d.text(p.value, p.key, must)
	if !ok {
		return
	}
	digits, factor := s, int64(1)
	for _, u := range units() {
		if before, found := strings.CutSuffix(s, u.suffix); found {
			digits, factor = before, u.bytes
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	switch {
	case p.value.quoted && factor == 1:
		d.fail(p.value.pos, "%s is %s in quotes, must be %s", p.key, quote(s), must)
	case err != nil || n < 0 || digits != strconv.FormatInt(n, 10):
		d.fail(p.value.pos, "%s is %s, must be %s", p.key, quote(s), must)
	case n > maxRate/factor:
		d.fail(p.value.pos, "%s is %s, must be %s at most, 0 for no limit", p.key, quote(s), rate(maxRate))
	default:
		*into = n * factor
	}
}

// rate is bytes a second as the file writes them, in the largest unit without
// a remainder.
func rate(n int64) string {
	for _, u := range units() {
		if n > 0 && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.suffix
		}
	}
	return strconv.FormatInt(n, 10)
}
