// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// The phases of a run.
const (
	warming int32 = iota
	measuring
	stopping
)

// endLimit is how long a stream may take to end after it was half-closed.
const endLimit = 10 * time.Second

// run is what the workers of a client share.
type run struct {
	spec  Spec
	phase atomic.Int32
	place atomic.Uint64 // of the next connection, for its source and target
}

// worker is one thread of a client.
type worker struct {
	*run
	ep     int
	buf    []byte
	hist   Hist
	res    Result
	seen   int32 // last phase seen
	cpu    time.Duration
	wall   int64
	failed error
}

// RunClient does what spec says. It writes Events to out, a line each; in is
// read by Hold and Stall only: a line asks for the next step.
func RunClient(spec Spec, in io.Reader, out io.Writer) error {
	enc := json.NewEncoder(out)
	res, err := runClient(spec, in, enc)
	if err != nil {
		res.Fatal = err.Error()
	}
	return enc.Encode(Event{Event: "result", Result: &res})
}

func runClient(spec Spec, in io.Reader, enc *json.Encoder) (Result, error) {
	if len(spec.Targets) == 0 {
		return Result{}, errors.New("client: no target given")
	}
	r := &run{spec: spec}
	if spec.Kind == Hold || spec.Kind == Stall {
		return r.hold(bufio.NewScanner(in), enc)
	}
	loops := map[Kind]func(*worker, []int) error{
		KeepAlive: (*worker).keepAlive, Paced: (*worker).paced, ConnRate: (*worker).connRate,
		BulkDown: (*worker).bulkDown, BulkUp: (*worker).bulkUp,
	}
	loop, ok := loops[spec.Kind]
	if !ok {
		return Result{}, fmt.Errorf("client: unknown kind %q", spec.Kind)
	}
	workers, fds, err := r.open()
	if err != nil {
		return Result{}, err
	}
	var wg sync.WaitGroup
	for i, w := range workers {
		wg.Go(func() {
			runtime.LockOSThread()
			w.failed = loop(w, fds[i])
			w.look()
		})
	}
	time.Sleep(spec.Warmup)
	began := time.Now()
	r.phase.Store(measuring)
	errStart := enc.Encode(Event{Event: "start"})
	time.Sleep(time.Until(began.Add(spec.Window)))
	r.phase.Store(stopping)
	took := time.Since(began)
	errEnd := enc.Encode(Event{Event: "end"})
	wg.Wait()
	res := merge(workers)
	res.Seconds = took.Seconds()
	for _, w := range workers {
		err = errors.Join(err, w.failed)
	}
	return res, errors.Join(err, errStart, errEnd)
}

// open makes the workers, and their connections unless each request has its own.
func (r *run) open() ([]*worker, [][]int, error) {
	n := min(max(r.spec.Workers, 1), max(r.spec.Conns, 1))
	if r.spec.Kind == Paced {
		n = 1
	}
	workers, fds := make([]*worker, n), make([][]int, n)
	for i := range workers {
		ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil {
			return nil, nil, fmt.Errorf("client: epoll: %w", err)
		}
		workers[i] = &worker{run: r, ep: ep, buf: make([]byte, 1<<20), res: Result{Errors: map[string]int{}}}
	}
	for i := range r.spec.Conns {
		fd := -1
		if r.spec.Kind != ConnRate {
			var err error
			if fd, err = r.dialNext(true); err != nil {
				return nil, nil, fmt.Errorf("client: connection %d of %d to %s: %w", i+1, r.spec.Conns, r.spec.Targets[0], err)
			}
		}
		fds[i%n] = append(fds[i%n], fd)
	}
	return workers, fds, nil
}

func (r *run) dialNext(block bool) (int, error) {
	i := int(r.place.Add(1) - 1)
	var from netip.Addr
	if len(r.spec.Sources) > 0 {
		from = r.spec.Sources[i%len(r.spec.Sources)]
	}
	return dial(from, r.spec.Targets[i%len(r.spec.Targets)], block)
}

// look tells the phase, and takes the thread's processor time as the window begins and ends.
func (w *worker) look() int32 {
	p := w.phase.Load()
	if p == w.seen {
		return p
	}
	switch {
	case p == measuring:
		w.cpu, w.wall = threadCPU(), nanotime()
	case w.wall != 0:
		if d := nanotime() - w.wall; d > 0 {
			w.res.ClientCPU = float64(threadCPU()-w.cpu) / float64(d)
		}
	}
	w.seen = p
	return p
}

func (w *worker) fault(err error) { w.res.Errors[err.Error()]++ }

func merge(workers []*worker) Result {
	total := Result{Errors: map[string]int{}}
	var hist Hist
	for _, w := range workers {
		hist.Merge(&w.hist)
		total.Done += w.res.Done
		total.Bytes += w.res.Bytes
		total.Total += w.res.Total
		total.Short += w.res.Short
		total.Lost += w.res.Lost
		total.Missed += w.res.Missed
		total.ClientCPU = max(total.ClientCPU, w.res.ClientCPU)
		for k, v := range w.res.Errors {
			total.Errors[k] += v
		}
	}
	total.Latency = hist.Summary()
	return total
}
