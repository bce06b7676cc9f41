// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"

	"sluice/pool"
)

// newMetricsHandler serves /metrics from a registry of its own: one collector,
// nothing registered by others.
func newMetricsHandler(src Source, log zerolog.Logger) (http.Handler, error) {
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(newCollector(src)); err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog:      quietLog(log),
		ErrorHandling: promhttp.HTTPErrorOnError,
	}), nil
}

// collector makes constant metrics of one snapshot for each scrape.
type collector struct {
	src   Source
	descs map[string]*prometheus.Desc
}

func newCollector(src Source) *collector {
	c := &collector{src: src, descs: make(map[string]*prometheus.Desc)}
	add := func(name, help string, labels ...string) {
		c.descs[name] = prometheus.NewDesc("sluice_"+name, help, labels, nil)
	}
	add("build_info", "Always 1; version, Go and kernel are its labels.", "version", "goversion", "kernel")
	add("start_time_seconds", "When the process started, in Unix seconds.")
	add("sessions_total", "Ended sessions by datapath and status.", "listener", "datapath", "status")
	add("sessions_active", "Live sessions.", "listener")
	add("session_bytes_total", "Payload bytes received from clients and sent to them.", "listener", "direction")
	add("backend_sessions_total", "Sessions that reached the backend.", "pool", "backend")
	add("backend_sessions_active", "Live sessions and attempts.", "pool", "backend")
	add("backend_failures_total", "Attempts to connect that failed.", "pool", "backend")
	add("backend_up", "1 if the backend's state is up, else 0.", "pool", "backend")
	add("backend_bytes_total", "Payload bytes received from the backend and sent to it.", "pool", "backend", "direction")
	add("backend_connect_seconds", "Time to connect, of the attempts that succeeded.", "pool", "backend")
	add("access_log_lines_total", "Access-log lines written.")
	add("access_log_dropped_lines_total", "Access-log lines that could not be written.")
	add("config_reloads_total", "Reloads of the configuration by result.", "result")
	add("config_reload_success", "1 if the last load was taken over, else 0.")
	add("config_reload_success_timestamp_seconds", "When a load was last taken over, in Unix seconds.")
	add("fallbacks_total", "Sessions for which a better datapath would have paid and couldn't be had.", "listener", "reason")
	add("dispatch_total", "Segments that the dispatch program has seen, by what it did.", "outcome")
	add("splice_total", "Runs of the splice verdict, by what it did.", "outcome")
	add("forward_packets_total", "Packets of registered sessions that the forward program has seen, by what it did.", "outcome")
	add("forward_flows", "Records of forwarded sessions in use.")
	add("forward_flows_max", "Records of forwarded sessions there is room for.")
	add("grpc_calls_total", "Ended calls by gRPC status code, - for none.", "listener", "code")
	add("grpc_call_seconds", "Time of calls, from their headers to their end.", "listener")
	add("grpc_connections", "Open connections that carry calls, of clients and to backends.", "listener", "side")
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s := c.src.Snapshot()
	b := &batch{descs: c.descs, seen: make(map[string]int)}
	b.process(s)
	for i := range s.Left {
		b.listener(&s.Left[i])
	}
	for i := range s.Listeners {
		b.listener(&s.Listeners[i])
	}
	for i := range s.Pools {
		for j := range s.Pools[i].Backends {
			b.backend(s.Pools[i].Name, &s.Pools[i].Backends[j])
		}
	}
	b.send(ch)
}

// batch gathers a scrape's values. What has the same name and labels twice (a
// listener that still drains beside its successor) is added up: a duplicate
// would cost the whole scrape.
type batch struct {
	descs  map[string]*prometheus.Desc
	seen   map[string]int
	values []value
}

type value struct {
	desc    *prometheus.Desc
	kind    prometheus.ValueType
	labels  []string
	number  float64
	buckets map[float64]uint64 // of a histogram, whose sum is number
	count   uint64
}

func (b *batch) add(v value, name string, labels ...string) {
	for i := range labels {
		labels[i] = strings.ToValidUTF8(labels[i], "\ufffd")
	}
	v.desc, v.labels = b.descs[name], labels
	key := name + "\xff" + strings.Join(labels, "\xff")
	if i, ok := b.seen[key]; ok {
		old := &b.values[i]
		if name == "backend_up" {
			old.number = max(old.number, v.number)
			return
		}
		old.number += v.number
		old.count += v.count
		for bound, n := range v.buckets {
			old.buckets[bound] += n
		}
		return
	}
	b.seen[key] = len(b.values)
	b.values = append(b.values, v)
}

func (b *batch) counter(name string, n float64, labels ...string) {
	b.add(value{kind: prometheus.CounterValue, number: n}, name, labels...)
}

func (b *batch) gauge(name string, n float64, labels ...string) {
	b.add(value{kind: prometheus.GaugeValue, number: n}, name, labels...)
}

func (b *batch) process(s *Snapshot) {
	b.gauge("build_info", 1, s.Version, s.GoVersion, s.Kernel)
	b.gauge("start_time_seconds", float64(s.Started.UnixMilli())/1000)
	b.counter("access_log_lines_total", float64(s.AccessLog.Lines))
	b.counter("access_log_dropped_lines_total", float64(s.AccessLog.Dropped))
	b.counter("config_reloads_total", float64(s.ReloadsOK), "ok")
	b.counter("config_reloads_total", float64(s.ReloadsRefused), "refused")
	b.gauge("config_reload_success", truth(s.Config.OK))
	b.gauge("config_reload_success_timestamp_seconds", float64(s.Config.LoadedAt.UnixMilli())/1000)
	for _, n := range s.Dispatch {
		b.counter("dispatch_total", float64(n.Count), n.Outcome)
	}
	for _, n := range s.Splice {
		b.counter("splice_total", float64(n.Count), n.Outcome)
	}
	if f := s.Forward; f != nil {
		for _, n := range f.Packets {
			b.counter("forward_packets_total", float64(n.Count), n.Outcome)
		}
		b.gauge("forward_flows", float64(f.Flows))
		b.gauge("forward_flows_max", float64(f.MaxFlows))
	}
}

func (b *batch) listener(l *ListenerStats) {
	for _, n := range l.Sessions {
		b.counter("sessions_total", float64(n.Count), l.Name, n.Datapath, strconv.Itoa(n.Status))
	}
	b.gauge("sessions_active", float64(l.Active), l.Name)
	b.counter("session_bytes_total", float64(l.BytesReceived), l.Name, "received")
	b.counter("session_bytes_total", float64(l.BytesSent), l.Name, "sent")
	b.calls(l)
	for reason, n := range l.Fallbacks {
		b.counter("fallbacks_total", float64(n), l.Name, reason)
	}
}

func (b *batch) calls(l *ListenerStats) {
	c := l.Calls
	if c == nil {
		return
	}
	for _, n := range c.Codes {
		code := "-"
		if n.Code >= 0 {
			code = strconv.Itoa(n.Code)
		}
		b.counter("grpc_calls_total", float64(n.Count), l.Name, code)
	}
	b.gauge("grpc_connections", float64(c.Clients), l.Name, "client")
	b.gauge("grpc_connections", float64(c.Backends), l.Name, "backend")
	h := value{number: c.Seconds, count: c.Count, buckets: make(map[float64]uint64)}
	for i, bound := range CallBounds() {
		h.buckets[bound] = c.Buckets[i]
	}
	b.add(h, "grpc_call_seconds", l.Name)
}

func (b *batch) backend(name string, s *BackendStats) {
	b.counter("backend_sessions_total", float64(s.Total), name, s.Address)
	b.gauge("backend_sessions_active", float64(s.Active), name, s.Address)
	b.counter("backend_failures_total", float64(s.Failed), name, s.Address)
	b.gauge("backend_up", truth(s.State == "up"), name, s.Address)
	b.counter("backend_bytes_total", float64(s.BytesReceived), name, s.Address, "received")
	b.counter("backend_bytes_total", float64(s.BytesSent), name, s.Address, "sent")
	h := value{number: s.ConnectSeconds, count: s.Total, buckets: make(map[float64]uint64)}
	for i, bound := range pool.ConnectBounds() {
		if i < len(s.ConnectBuckets) {
			h.buckets[bound] = s.ConnectBuckets[i]
		}
	}
	b.add(h, "backend_connect_seconds", name, s.Address)
}

func (b *batch) send(ch chan<- prometheus.Metric) {
	for _, v := range b.values {
		var m prometheus.Metric
		var err error
		if v.buckets != nil {
			m, err = prometheus.NewConstHistogram(v.desc, v.count, v.number, v.buckets, v.labels...)
		} else {
			m, err = prometheus.NewConstMetric(v.desc, v.kind, v.number, v.labels...)
		}
		if err != nil {
			m = prometheus.NewInvalidMetric(v.desc, err)
		}
		ch <- m
	}
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
