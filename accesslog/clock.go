// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"strconv"
	"time"
)

// clock keeps the texts of the second that is stamped, as they are the same for
// all lines of a second.
type clock struct {
	now   time.Time
	sec   int64
	valid bool
	local []byte // $time_local
	iso   []byte // $time_iso8601
}

// set makes now, in the zone that is to be printed, the time of what follows.
func (c *clock) set(now time.Time) {
	c.now = now
	if sec := now.Unix(); !c.valid || sec != c.sec {
		c.sec, c.valid = sec, true
		// nginx's month names are English, as Go's are.
		c.local = now.AppendFormat(c.local[:0], "02/Jan/2006:15:04:05 -0700")
		c.iso = now.AppendFormat(c.iso[:0], "2006-01-02T15:04:05-07:00")
	}
}

// appendSeconds appends seconds with three decimals, cut, never negative.
func appendSeconds(dst []byte, d time.Duration) []byte {
	ms := max(d.Milliseconds(), 0)
	dst = strconv.AppendInt(dst, ms/1000, 10)
	return appendFraction(dst, ms%1000, 100)
}

// appendMicros appends seconds with six decimals, cut, never negative.
func appendMicros(dst []byte, d time.Duration) []byte {
	us := max(d.Microseconds(), 0)
	dst = strconv.AppendInt(dst, us/1_000_000, 10)
	return appendFraction(dst, us%1_000_000, 100_000)
}

// appendFraction appends a dot and the digits of n, the first worth top.
func appendFraction(dst []byte, n, top int64) []byte {
	dst = append(dst, '.')
	for ; top > 0; top /= 10 {
		dst = append(dst, byte('0'+n/top%10))
	}
	return dst
}
