// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"strings"
	"testing"
	"time"
)

func TestCalls(t *testing.T) {
	l := NewListener("g")
	if s := l.Snapshot(); s.Calls != nil || s.Connections != nil {
		t.Errorf("a listener without calls: %+v", s)
	}
	l.HasCalls()
	l.HasCalls()
	c := l.Calls()
	for code, n := range map[int]int{0: 3, 14: 2, 16: 1, 17: 1, -1: 1, 9999: 1} {
		for range n {
			c.Ended(code, 2*time.Millisecond)
		}
	}
	c.Ended(0, time.Hour)
	c.Ended(0, -time.Second)
	c.Clients.Add(2)
	c.Backends.Add(3)
	snap := sampleSnapshot()
	snap.Listeners = []ListenerStats{l.Snapshot()}
	src := newFakeSource(0)
	src.snapshot = func() *Snapshot { return snap }
	text := scrape(t, src)
	for _, want := range []string{
		`sluice_grpc_calls_total{code="0",listener="g"} 5`, `sluice_grpc_calls_total{code="14",listener="g"} 2`,
		`sluice_grpc_calls_total{code="16",listener="g"} 1`, `sluice_grpc_calls_total{code="-",listener="g"} 3`,
		`sluice_grpc_call_seconds_bucket{listener="g",le="0.0005"} 1`, `sluice_grpc_call_seconds_bucket{listener="g",le="0.0025"} 10`,
		`sluice_grpc_call_seconds_bucket{listener="g",le="300"} 10`, `sluice_grpc_call_seconds_bucket{listener="g",le="+Inf"} 11`,
		`sluice_grpc_connections{listener="g",side="client"} 2`, `sluice_grpc_connections{listener="g",side="backend"} 3`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if s := l.Snapshot(); *s.Connections != 2 {
		t.Errorf("%d connections", *s.Connections)
	}
}
