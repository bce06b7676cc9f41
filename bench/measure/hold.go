// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"sluice/bench/lab"
	"sluice/bench/load"
	"sluice/bench/result"
)

// WAN-like links.
const (
	wanRTT  = 50 * time.Millisecond
	wanLoss = 1 // percent
)

// settle is how long memory is left alone before it is read.
const settle = 300 * time.Millisecond

// hidden is a growth, in KiB a session, below what any session needs: the
// process had the memory already, set aside or as garbage of its start.
const hidden = .25

// usedMessages is how many messages an idle session has had where it is one that
// was in use: enough for every datapath that sessions are moved to for traffic.
const usedMessages = 32

// footprint is what a balancer has: memory in KiB, descriptors, and its host's
// TCP sockets that aren't in TIME_WAIT.
type footprint struct{ pss, fds, sockets float64 }

func (e *Entry) footprint() (f footprint, err error) {
	if f.pss, err = treePss(e.Pids()); err != nil {
		return f, err
	}
	for _, pid := range e.Pids() {
		list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			return f, err
		}
		f.fds += float64(len(list))
	}
	text, err := e.host.ReadNet("sockstat")
	if err != nil {
		return f, err
	}
	f.sockets, err = sockstat(text, "inuse")
	return f, err
}

// memory opens idle sessions at a fresh process, each after so many messages,
// and takes the growth of its Pss, of its descriptors and of its host's sockets.
func memory(messages int) func(context.Context, *Entry, time.Duration) (result.Sample, error) {
	return func(ctx context.Context, e *Entry, _ time.Duration) (result.Sample, error) {
		if !e.HasProcess() {
			return result.Sample{Values: map[string]float64{}}, nil
		}
		if err := e.restart(ctx); err != nil {
			return result.Sample{}, err
		}
		time.Sleep(settle)
		base, err := e.footprint()
		if err != nil {
			return result.Sample{}, err
		}
		spec := e.spec(load.Hold, load.EchoPort, 0, 0)
		spec.Messages, spec.Steps = messages, []int{1000, 5000, 9000}
		if e.bed.short || messages > 1 {
			spec.Steps = []int{5000}
		}
		values := map[string]float64{"base": base.pss / 1024}
		res, err := e.bed.steps(ctx, spec, func(held int) error {
			time.Sleep(settle)
			now, err := e.footprint()
			values[fmt.Sprintf("kib%d", held)] = (now.pss - base.pss) / float64(held)
			if held == 5000 {
				values["at5000"] = now.pss / 1024
				values["fds"], values["sockets"] = (now.fds-base.fds)/float64(held), (now.sockets-base.sockets)/float64(held)
			}
			return err
		})
		if err = errors.Join(err, e.Alive()); err != nil {
			return result.Sample{}, err
		}
		if res.Lost > 0 {
			return result.Sample{}, fmt.Errorf("%d of %d idle sessions were closed", res.Lost, res.Done)
		}
		s := result.Sample{Values: values}
		if values["kib5000"] < hidden {
			s.Marks = append(s.Marks, "no growth to speak of: sessions use what it had before")
		}
		return s, nil
	}
}

// steps runs a client that stops after each step until at has returned.
func (b *Bed) steps(ctx context.Context, spec load.Spec, at func(held int) error) (*load.Result, error) {
	cl, err := b.startClient(spec)
	if err != nil {
		return nil, err
	}
	return cl.result(ctx, func(ev load.Event) error {
		if err := at(ev.Count); err != nil {
			return err
		}
		_, err := fmt.Fprintln(cl.in)
		return err
	})
}

// updateEvery is the time between two live updates.
const updateEvery = 500 * time.Millisecond

// liveUpdate takes the last backend out and puts it back while requests and
// new connections go on. A stall is the longest that one of them took, the
// time it was sent late included.
func liveUpdate(ctx context.Context, e *Entry, d time.Duration) (result.Sample, error) {
	requests := e.spec(load.Paced, load.EchoPort, fixedConns, max(d, 2*time.Second))
	requests.Rate = 2000
	fresh := e.spec(load.ConnRate, load.EchoPort, atOnce, max(d, 2*time.Second))
	fresh.Rate, fresh.Workers = 500, 1
	other, err := e.bed.startClient(fresh)
	if err != nil {
		return result.Sample{}, err
	}
	type outcome struct {
		res *load.Result
		err error
	}
	second := make(chan outcome, 1)
	go func() {
		res, err := other.result(ctx, nil)
		second <- outcome{res, err}
	}()
	updates := make(chan error, 1)
	var took []float64
	stop := make(chan struct{})
	go func() { updates <- e.updates(ctx, stop, &took) }()
	res, _, err := e.drive(ctx, requests)
	close(stop)
	err = errors.Join(err, <-updates)
	conns := <-second
	if err = errors.Join(err, conns.err); err != nil {
		return result.Sample{}, err
	}
	values := map[string]float64{"stall": max(res.Latency.Max, conns.res.Latency.Max) / 1e3, "lost": float64(res.Lost + conns.res.Lost)}
	if len(took) > 0 {
		values["apply"] = result.Median(took)
		values["applymax"] = 0
		for _, ms := range took {
			values["applymax"] = max(values["applymax"], ms)
		}
	}
	return result.Sample{Values: values}, nil
}

// updates leaves the contender with all its backends.
func (e *Entry) updates(ctx context.Context, stop <-chan struct{}, took *[]float64) error {
	all := lab.BackendAddrs(e.bed.Kind.Backends)
	if e.Direct() {
		return nil
	}
	for i := 0; ; i++ {
		select {
		case <-stop:
			if i%2 == 1 {
				return e.Update(ctx, all)
			}
			return nil
		case <-time.After(updateEvery):
		}
		now := all
		if i%2 == 0 {
			now = all[:len(all)-1]
		}
		began := time.Now()
		if err := e.Update(ctx, now); err != nil {
			return err
		}
		*took = append(*took, float64(time.Since(began).Microseconds())/1e3)
	}
}
