// SPDX-License-Identifier: Apache-2.0

// Package mono reads CLOCK_MONOTONIC, the clock of bpf_ktime_get_ns, without a
// system call.
package mono

import (
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// Clock is CLOCK_MONOTONIC. Go's own monotonic time is the same clock, of which
// it tells only differences.
type Clock struct {
	base time.Time
	at   int64 // the clock at base, ns
}

// New returns a clock, ready to be read from any goroutine.
func New() Clock {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // this clock can't fail
	return Clock{time.Now(), ts.Nano()}
}

// Now is the time in ns.
func (c Clock) Now() int64 { return c.at + int64(time.Since(c.base)) }

// Of is what Now reads at t, which is an earlier or later time.Now; as far as
// the type goes.
func (c Clock) Of(t time.Time) int64 {
	since := int64(t.Sub(c.base))
	if since > math.MaxInt64-c.at {
		return math.MaxInt64
	}
	return c.at + since
}

// Wall turns a reading of Now into the time of day.
func (c Clock) Wall(now int64) time.Time { return c.base.Add(time.Duration(now - c.at)) }
