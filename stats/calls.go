// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"sync/atomic"
	"time"
)

// callBounds are the upper bounds of the histogram of calls, seconds.
var callBounds = [...]float64{
	0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300,
}

// CallBounds are the upper bounds, in seconds, of CallStats.Buckets.
func CallBounds() []float64 {
	bounds := callBounds
	return bounds[:]
}

// lastCode is the highest status code that gRPC has.
const lastCode = 16

// Calls holds the counters of a listener that balances calls. It must not be
// copied. All methods may be called from any goroutine.
type Calls struct {
	// Clients and Backends are connections that are open, of clients and to backends.
	Clients, Backends atomic.Int64

	codes   [lastCode + 2]atomic.Uint64 // the last one: without a code that gRPC has
	buckets [len(callBounds) + 1]atomic.Uint64
	nanos   atomic.Uint64 // of all calls together
}

// Ended counts a call that took so long and ended with this status code; < 0:
// without one.
func (c *Calls) Ended(code int, took time.Duration) {
	if code < 0 || code > lastCode {
		code = lastCode + 1
	}
	c.codes[code].Add(1)
	took = max(took, 0)
	c.nanos.Add(uint64(took))
	i := 0
	for i < len(callBounds) && took.Seconds() > callBounds[i] {
		i++
	}
	c.buckets[i].Add(1)
}

// CallStats are the figures of Calls at one moment.
type CallStats struct {
	Clients, Backends int64
	Codes             []CodeCount // of each code that has occurred
	Count             uint64
	Seconds           float64
	// Buckets[i] counts the calls that took CallBounds()[i] seconds at most, as
	// Prometheus cumulates them.
	Buckets []uint64
}

// CodeCount is a number of calls that ended with a code; Code < 0: without one.
type CodeCount struct {
	Code  int
	Count uint64
}

// Snapshot reads the figures.
func (c *Calls) Snapshot() *CallStats {
	s := &CallStats{
		Clients: max(c.Clients.Load(), 0), Backends: max(c.Backends.Load(), 0),
		Seconds: float64(c.nanos.Load()) / 1e9, Buckets: make([]uint64, len(callBounds)),
	}
	for code := range c.codes {
		if n := c.codes[code].Load(); n > 0 {
			if code > lastCode {
				code = -1
			}
			s.Codes = append(s.Codes, CodeCount{code, n})
		}
	}
	for i := range c.buckets {
		s.Count += c.buckets[i].Load()
		if i < len(s.Buckets) {
			s.Buckets[i] = s.Count
		}
	}
	return s
}
