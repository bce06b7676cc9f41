// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"time"

	"golang.org/x/sys/unix"
)

// clock reads CLOCK_MONOTONIC, the clock of bpf_ktime_get_ns, without a system
// call: Go's own monotonic time is the same clock, of which it tells only
// differences.
type clock struct {
	base time.Time
	at   uint64 // the clock at base, ns
}

func newClock() clock {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // this clock can't fail
	return clock{time.Now(), uint64(ts.Nano())}
}

// now is in ns.
func (c clock) now() uint64 { return c.at + uint64(time.Since(c.base)) }
