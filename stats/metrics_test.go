// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"fmt"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/rs/zerolog"

	"sluice/pool"
)

func sampleSnapshot() *Snapshot {
	l := NewListener("front")
	l.Active.Store(2)
	l.Total.Store(12)
	l.Received.Store(1)
	l.Sent.Store(2)
	for range 7 {
		l.Ended("splice", 200)
	}
	l.Ended("", 502)
	l.Fallback("map_full")
	front := l.Snapshot()
	front.Listen, front.Pool, front.Protocol, front.Datapath = []string{":19585"}, "readers", "tcp", "splice"
	buckets := make([]uint64, len(pool.ConnectBounds()))
	for i := range buckets {
		buckets[i] = min(uint64(i), 9)
	}
	return &Snapshot{
		Version: "1.2.3", Kernel: "6.18.0", PID: 77, UptimeSeconds: 3661.5,
		Config:    ConfigStats{File: "b.yaml", OK: true, LoadedAt: time.Unix(1700000001, 500e6).UTC()},
		AccessLog: AccessLogStats{Lines: 8, Dropped: 3},
		Listeners: []ListenerStats{front},
		Pools: []PoolStats{NewPoolStats("readers", "round_robin", []pool.BackendStats{
			{Address: "10.0.0.1:80", State: "up", Weight: 5, Active: 2, Total: 9, Failed: 1, Received: 3, Sent: 4,
				ConnectSeconds: 0.25, ConnectBuckets: buckets},
			{Address: "10.0.0.2:80", State: "ejected", Weight: 1, Backup: true, ConnectBuckets: make([]uint64, len(buckets))},
		})},
		Dispatch:  []OutcomeCount{{"picked", 11}, {"stray", 0}},
		Splice:    []OutcomeCount{{"redirected", 12}, {"dropped_fin", 0}},
		Forward:   &ForwardStats{Packets: []OutcomeCount{{"sent", 7}, {"up", 0}}, Flows: 3, MaxFlows: 65536},
		GoVersion: "go1.26", Started: time.Unix(1700000000, 0), ReloadsOK: 4, ReloadsRefused: 1,
	}
}

func scrape(t *testing.T, src Source) string {
	t.Helper()
	h, err := newMetricsHandler(src, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestMetrics(t *testing.T) {
	text := scrape(t, newFakeSource(0))
	var got []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") && !strings.Contains(line, "_bucket{") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	want := []string{
		`sluice_access_log_dropped_lines_total 3`,
		`sluice_access_log_lines_total 8`,
		`sluice_backend_bytes_total{backend="10.0.0.1:80",direction="received",pool="readers"} 3`,
		`sluice_backend_bytes_total{backend="10.0.0.1:80",direction="sent",pool="readers"} 4`,
		`sluice_backend_bytes_total{backend="10.0.0.2:80",direction="received",pool="readers"} 0`,
		`sluice_backend_bytes_total{backend="10.0.0.2:80",direction="sent",pool="readers"} 0`,
		`sluice_backend_connect_seconds_sum{backend="10.0.0.1:80",pool="readers"} 0.25`,
		`sluice_backend_connect_seconds_count{backend="10.0.0.1:80",pool="readers"} 9`,
		`sluice_backend_connect_seconds_sum{backend="10.0.0.2:80",pool="readers"} 0`,
		`sluice_backend_connect_seconds_count{backend="10.0.0.2:80",pool="readers"} 0`,
		`sluice_backend_failures_total{backend="10.0.0.1:80",pool="readers"} 1`,
		`sluice_backend_failures_total{backend="10.0.0.2:80",pool="readers"} 0`,
		`sluice_backend_sessions_active{backend="10.0.0.1:80",pool="readers"} 2`,
		`sluice_backend_sessions_active{backend="10.0.0.2:80",pool="readers"} 0`,
		`sluice_backend_sessions_total{backend="10.0.0.1:80",pool="readers"} 9`,
		`sluice_backend_sessions_total{backend="10.0.0.2:80",pool="readers"} 0`,
		`sluice_backend_up{backend="10.0.0.1:80",pool="readers"} 1`,
		`sluice_backend_up{backend="10.0.0.2:80",pool="readers"} 0`,
		`sluice_build_info{goversion="go1.26",kernel="6.18.0",version="1.2.3"} 1`,
		`sluice_config_reload_success 1`,
		`sluice_config_reload_success_timestamp_seconds 1.7000000015e+09`,
		`sluice_config_reloads_total{result="ok"} 4`,
		`sluice_config_reloads_total{result="refused"} 1`,
		`sluice_dispatch_total{outcome="picked"} 11`,
		`sluice_dispatch_total{outcome="stray"} 0`,
		`sluice_fallbacks_total{listener="front",reason="map_full"} 1`,
		`sluice_forward_flows 3`,
		`sluice_forward_flows_max 65536`,
		`sluice_forward_packets_total{outcome="sent"} 7`,
		`sluice_forward_packets_total{outcome="up"} 0`,
		`sluice_session_bytes_total{direction="received",listener="front"} 1`,
		`sluice_session_bytes_total{direction="sent",listener="front"} 2`,
		`sluice_sessions_active{listener="front"} 2`,
		`sluice_sessions_total{datapath="-",listener="front",status="502"} 1`,
		`sluice_sessions_total{datapath="splice",listener="front",status="200"} 7`,
		`sluice_splice_total{outcome="dropped_fin"} 0`,
		`sluice_splice_total{outcome="redirected"} 12`,
		`sluice_start_time_seconds 1.7e+09`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for i, bound := range pool.ConnectBounds() {
		line := fmt.Sprintf("sluice_backend_connect_seconds_bucket{backend=\"10.0.0.1:80\",pool=\"readers\",le=\"%v\"} %d\n", bound, min(i, 9))
		if !strings.Contains(text, line) {
			t.Errorf("no %s", line)
		}
	}
}

func TestMetricsLint(t *testing.T) {
	text := scrape(t, newFakeSource(0))
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Log("promtool isn't installed: linted by the library alone")
		return
	}
	cmd := exec.Command(promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// What has the same labels twice is added up and spoils no scrape.
func TestMetricsDuplicates(t *testing.T) {
	src := &fakeSource{snapshot: func() *Snapshot {
		s := sampleSnapshot()
		s.Listeners = append(s.Listeners, s.Listeners[0])
		s.Pools = append(s.Pools, s.Pools[0])
		s.Pools = append(s.Pools, PoolStats{Name: "bad\xff", Backends: []BackendStats{{Address: "unix:/\xfe"}}})
		return s
	}}
	text := scrape(t, src)
	for _, want := range []string{
		"sluice_sessions_active{listener=\"front\"} 4\n",
		"sluice_backend_connect_seconds_count{backend=\"10.0.0.1:80\",pool=\"readers\"} 18\n",
		"sluice_backend_up{backend=\"10.0.0.1:80\",pool=\"readers\"} 1\n",
		"sluice_backend_up{backend=\"unix:/\ufffd\",pool=\"bad\ufffd\"} 0\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
}

func TestRender(t *testing.T) {
	var b strings.Builder
	s := sampleSnapshot()
	s.Config.OK, s.Config.Error = false, "b.yaml:1:1: \x1b[31mbad"
	s.Listeners[0].BytesSent = 3 << 29
	if err := RenderStatus(&b, s, 0); err != nil {
		t.Fatal(err)
	}
	const want = `sluice 1.2.3, kernel 6.18.0, pid 77, up 1h1m1.5s
configuration b.yaml, loaded 2023-11-14T22:13:21Z, last load refused: b.yaml:1:1: ?[31mbad
access log: 8 lines, 3 dropped

LISTENER  ADDRESS  POOL     PROTOCOL  DATAPATH  ACTIVE  TOTAL  RECEIVED  SENT     REASON
front     :19585   readers  tcp       splice    2       12     1 B       1.5 GiB  -

LISTENER  FALLBACK  SESSIONS
front     map_full  1

POOL     BALANCE      BACKEND      STATE    WEIGHT  BACKUP  ACTIVE  TOTAL  FAILED  RECEIVED  SENT  CONNECT
readers  round_robin  10.0.0.1:80  up       5       no      2       9      1       3 B       4 B   27.778ms
readers  round_robin  10.0.0.2:80  ejected  1       yes     0       0      0       0 B       0 B   -
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	b.Reset()
	if err := RenderFlows(&b, newFakeSource(1).flows, 0); err != nil {
		t.Fatal(err)
	}
	const flows = `ID  LISTENER  POOL     BACKEND      CLIENT       DATAPATH  AGE     IDLE   RECEIVED  SENT  REASON
1   front     readers  10.0.0.1:80  192.0.2.1:5  splice    1m1.3s  500ms  5 B       9 B   -
`
	if diff := cmp.Diff(flows, b.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
