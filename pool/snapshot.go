// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"time"

	"sluice/config"
)

// connectBounds are the upper bounds of the connect-time histogram, seconds.
var connectBounds = [...]float64{
	0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60,
}

// ConnectBounds are the upper bounds, in seconds, of BackendStats.ConnectBuckets.
func ConnectBounds() []float64 {
	bounds := connectBounds
	return bounds[:]
}

// BackendStats are a backend's figures at one moment.
type BackendStats struct {
	Address        string
	State          string // up, ejected, failing, drain, down or removed
	Weight         int
	Backup         bool
	Active         uint64 // sessions and attempts
	Total          uint64 // attempts that succeeded, which is sessions served
	Failed         uint64 // attempts that failed
	Received, Sent uint64 // payload bytes from and to the backend
	ConnectSeconds float64
	// ConnectBuckets[i] counts the attempts that succeeded within
	// ConnectBounds()[i] seconds, as Prometheus cumulates them; Total is +Inf.
	ConnectBuckets []uint64
}

// Snapshot reads the figures. A backend shows as ejected until a session
// succeeds there, also when fail_timeout is over and nobody has probed it.
func (b *Backend) Snapshot(_ time.Time) BackendStats {
	address, buckets := b.Addr.String(), make([]uint64, len(connectBounds)) // not under the lock, which picks wait for
	b.pool.mu.Lock()
	defer b.pool.mu.Unlock()
	st := BackendStats{
		Address:        address,
		State:          b.state(),
		Weight:         int(b.weight),
		Backup:         b.spec.Backup,
		Active:         uint64(max(b.conns, 0)),
		Total:          b.total,
		Failed:         b.failed,
		Received:       b.received.Load(),
		Sent:           b.sent.Load(),
		ConnectSeconds: b.connectSeconds,
		ConnectBuckets: buckets,
	}
	var sum uint64
	for i, n := range b.connectBuckets {
		sum += n
		st.ConnectBuckets[i] = sum
	}
	return st
}

func (b *Backend) state() string {
	switch {
	case b.removed:
		return "removed"
	case b.down():
		return "down"
	case b.spec.State == config.Drain:
		return "drain"
	case b.failing:
		return "failing"
	case b.struck():
		return "ejected"
	}
	return "up"
}

func (b *Backend) observe(took time.Duration) {
	seconds := max(took, 0).Seconds()
	b.connectSeconds += seconds
	for i, bound := range connectBounds {
		if seconds <= bound {
			b.connectBuckets[i]++
			return
		}
	}
}
