// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"sluice/bench/lab"
	"sluice/bench/load"
	"sluice/bench/result"
)

const (
	messageSize = 64
	sources     = 16 // client addresses
	atOnce      = 16 // connections at a time where each has one request
	fixedRPS    = 5000
	fixedConns  = 32
	// bound is the share of a core from which on a client's thread is taken to be the limit.
	bound = .95
)

// window is what happened to the box, the balancer and the backend in a client's window.
type window struct {
	box, own      float64 // cores
	backend       float64 // cores
	began, ended  load.BackendStats
	before, after load.BackendStats // around the whole run
	seconds       float64
}

// drive runs a client against a contender, and looks at the box meanwhile.
func (e *Entry) drive(ctx context.Context, spec load.Spec) (*load.Result, window, error) {
	var w window
	var err error
	if w.before, err = e.bed.backend.stats(); err != nil {
		return nil, w, err
	}
	cl, err := e.bed.startClient(spec)
	if err != nil {
		return nil, w, err
	}
	pids := e.Pids()
	var box boxTime
	var own float64
	res, err := cl.result(ctx, func(ev load.Event) (err error) {
		switch ev.Event {
		case "start":
			own, box = treeCPU(pids), readBox()
			w.began, err = e.bed.backend.stats()
		case "end":
			end := readBox()
			w.box, w.seconds = busy(box, end), end.at.Sub(box.at).Seconds()
			w.own = (treeCPU(pids) - own) / w.seconds
			w.ended, err = e.bed.backend.stats()
		}
		return err
	})
	if err = errors.Join(err, e.Alive()); err != nil {
		return nil, w, err
	}
	w.backend = (w.ended.CPU - w.began.CPU) / w.seconds
	w.after, err = e.bed.backend.stats()
	return res, w, err
}

func (e *Entry) spec(kind load.Kind, port, conns int, d time.Duration) load.Spec {
	return load.Spec{Kind: kind, Targets: e.Targets(port), Sources: lab.SourceAddrs(sources), Conns: conns,
		Workers: e.bed.threads(), Size: messageSize, Warmup: min(d/4, 500*time.Millisecond), Window: d}
}

// sample has the figures that every workload of requests has.
func sample(res *load.Result, w window) result.Sample {
	s := result.Sample{Values: map[string]float64{
		"p50": res.Latency.P50, "p99": res.Latency.P99, "p999": res.Latency.P999, "max": res.Latency.Max,
		"rps": float64(res.Done) / res.Seconds, "client": res.ClientCPU, "own": w.own, "backend": w.backend,
	}}
	if res.ClientCPU > bound {
		s.Marks = append(s.Marks, "client-bound")
	}
	return s
}

func faults(res *load.Result) string {
	var parts []string
	for what, n := range res.Errors {
		parts = append(parts, fmt.Sprintf("%d x %s", n, what))
	}
	return strings.Join(parts, ", ")
}

func keepAlive(conns int) func(context.Context, *Entry, time.Duration) (result.Sample, error) {
	return func(ctx context.Context, e *Entry, d time.Duration) (result.Sample, error) {
		res, w, err := e.drive(ctx, e.spec(load.KeepAlive, load.EchoPort, conns, d))
		if err != nil {
			return result.Sample{}, err
		}
		if res.Lost > 0 {
			return result.Sample{}, fmt.Errorf("%d connections broke: %s", res.Lost, faults(res))
		}
		s := sample(res, w)
		if conns == 1 {
			s.Marks = nil // one connection waits for its answer; its thread is never the limit
		}
		return s, nil
	}
}

func fixedRate(ctx context.Context, e *Entry, d time.Duration) (result.Sample, error) {
	spec := e.spec(load.Paced, load.EchoPort, fixedConns, d)
	spec.Rate = fixedRPS
	res, w, err := e.drive(ctx, spec)
	if err != nil {
		return result.Sample{}, err
	}
	if res.Lost > 0 {
		return result.Sample{}, fmt.Errorf("%d connections broke: %s", res.Lost, faults(res))
	}
	s := sample(res, w)
	s.Values["box"] = max(w.box-e.bed.noise, 0)
	if math.Abs(s.Values["rps"]-fixedRPS) > .02*fixedRPS {
		s.Marks = append(s.Marks, "rate not held")
	}
	return s, nil
}

func connRate(ctx context.Context, e *Entry, d time.Duration) (result.Sample, error) {
	return sessions(1)(ctx, e, d)
}

// sessions opens one after the other, atOnce at a time, with so many messages
// each. A latency is that of a session, from its SYN to the last answer.
func sessions(messages int) func(context.Context, *Entry, time.Duration) (result.Sample, error) {
	return func(ctx context.Context, e *Entry, d time.Duration) (result.Sample, error) {
		before, err := e.bed.ports()
		if err != nil {
			return result.Sample{}, err
		}
		spec := e.spec(load.ConnRate, load.EchoPort, atOnce, d)
		spec.Messages = messages
		res, w, err := e.drive(ctx, spec)
		if err != nil {
			return result.Sample{}, err
		}
		after, err := e.bed.ports()
		if err != nil {
			return result.Sample{}, err
		}
		if err := exhausted(e, res, before, after); err != nil {
			return result.Sample{}, err
		}
		s := sample(res, w)
		s.Values["conns"] = s.Values["rps"]
		s.Values["rps"] *= float64(messages)
		if e.HasProcess() {
			if s.Values["pss"], err = treePss(e.Pids()); err != nil {
				return result.Sample{}, err
			}
		}
		return s, nil
	}
}

func bulk(streams int, up bool) func(context.Context, *Entry, time.Duration) (result.Sample, error) {
	return func(ctx context.Context, e *Entry, d time.Duration) (result.Sample, error) {
		kind, port := load.BulkDown, load.SourcePort
		if up {
			kind, port = load.BulkUp, load.SinkPort
		}
		spec := e.spec(kind, port, streams, d)
		switch {
		case e.bed.Kind.WAN:
			spec.Warmup = 2 * time.Second // slow start
		case d >= time.Second:
			spec.Warmup = time.Second // by then a stream is on the datapath that it stays on
		}
		res, w, err := e.drive(ctx, spec)
		if err != nil {
			return result.Sample{}, err
		}
		sent, got := w.after.SourceSent-w.before.SourceSent, res.Total
		moved, took := float64(res.Bytes), res.Seconds
		if up {
			sent, got = res.Total, w.after.SinkBytes-w.before.SinkBytes
			moved, took = float64(w.ended.SinkBytes-w.began.SinkBytes), float64(w.ended.Nanos-w.began.Nanos)/1e9
		}
		if res.Short > 0 || sent < got {
			return result.Sample{}, fmt.Errorf("%d streams did not end in order (%s); %d bytes sent, %d received", res.Short, faults(res), sent, got)
		}
		s := result.Sample{Values: map[string]float64{"gbits": moved * 8 / took / 1e9, "own": w.own, "client": res.ClientCPU, "backend": w.backend}}
		if res.ClientCPU > bound {
			s.Marks = append(s.Marks, "client-bound")
		}
		if sent > got {
			// The window was over by then, so that the figure holds; but the contender lost data.
			s.Marks = append(s.Marks, "LOST BYTES at the end of a stream")
		}
		return s, nil
	}
}
