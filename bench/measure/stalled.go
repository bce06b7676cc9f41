// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"context"
	"errors"
	"time"

	"sluice/bench/load"
	"sluice/bench/result"
)

const (
	// stalledClients is how many clients never read: enough for what else the
	// machine does meanwhile to be small beside what they hold.
	stalledClients = 200
	// stalledGap is between two of them: each has the machine to itself until its
	// buffers are full, so that what they take doesn't depend on who else is just filling his.
	stalledGap = 10 * time.Millisecond
	// farStalled is their number behind the slow link, which fills their buffers slowly.
	farStalled = 32

	// Memory stands once it has grown by less than a hundredth within standsFor.
	standsFor  = 500 * time.Millisecond
	standLimit = 15 * time.Second
)

// held is memory, in KiB: what the kernel charges to all TCP sockets of the three
// hosts, the balancer's own processes, and what MemAvailable lacks.
type held struct{ sockets, own, box float64 }

func (h held) total() float64 { return h.sockets + h.own }

// stalled takes the memory that sessions hold, on all three hosts together, while
// clients don't read from backends that never stop. It is that of the sockets and
// the balancer's own: no balancer here keeps bytes in a pipe. What MemAvailable
// lacks stands beside it, and is no better a measure: the kernel keeps part of
// what one contender has held ready for the next.
func stalled(clients int) func(context.Context, *Entry, time.Duration) (result.Sample, error) {
	return func(ctx context.Context, e *Entry, _ time.Duration) (result.Sample, error) {
		before, _, err := e.holds()
		sentBefore, err2 := e.bed.backend.stats()
		if err = errors.Join(err, err2); err != nil {
			return result.Sample{}, err
		}
		spec := e.spec(load.Stall, load.StallPort, 0, 0)
		spec.Steps, spec.Gap = []int{clients}, stalledGap
		var s result.Sample
		_, err = e.bed.steps(ctx, spec, func(n int) error {
			after, marks, err := e.stand(ctx, before)
			perClient := func(a, b float64) float64 { return (a - b) / 1024 / float64(n) }
			s = result.Sample{Marks: marks, Values: map[string]float64{"mib": perClient(after.total(), before.total()),
				"own": perClient(after.own, before.own), "box": perClient(after.box, before.box)}}
			return err
		})
		sent, err2 := e.bed.backend.stats()
		if err = errors.Join(err, err2, e.Alive()); err != nil {
			return result.Sample{}, err
		}
		if sent.SourceSent == sentBefore.SourceSent {
			return result.Sample{}, errors.New("the backends sent nothing")
		}
		back, err := e.givenBack(ctx, before)
		if !back {
			s.Marks = append(s.Marks, "5 s after the clients have gone sockets still hold much: somebody else's, or what is measured next has it too")
		}
		return s, err
	}
}

// holds reads what is held now. Less of what is available is more that is held.
func (e *Entry) holds() (h held, pressed bool, err error) {
	sockets, pressure, err1 := tcpMemory()
	h.box, h.sockets = -available(), sockets
	if e.HasProcess() {
		h.own, err = treePss(e.Pids())
	}
	return h, sockets > pressure, errors.Join(err, err1)
}

// stand waits until memory grows no more, and tells what is held then.
func (e *Entry) stand(ctx context.Context, before held) (held, []string, error) {
	last := before
	for began := time.Now(); ; {
		time.Sleep(standsFor)
		now, pressed, err := e.holds()
		if err = errors.Join(err, ctx.Err()); err != nil {
			return held{}, nil, err
		}
		stands, late := now.total()-last.total() <= (now.total()-before.total())/100, time.Since(began) > standLimit
		if !stands && !late {
			last = now
			continue
		}
		var marks []string
		if !stands {
			marks = append(marks, "STILL GROWING")
		}
		if pressed {
			marks = append(marks, "beyond tcp_mem's pressure, where buffers are kept short")
		}
		return now, marks, nil
	}
}

// givenBack waits until the sockets hold about what they did before, so that the
// next contender doesn't begin with what this one has left.
func (e *Entry) givenBack(ctx context.Context, before held) (bool, error) {
	for range 50 {
		now, _, err := e.holds()
		if err = errors.Join(err, ctx.Err()); err != nil {
			return false, err
		}
		if now.sockets < before.sockets+4096 {
			time.Sleep(settle)
			return true, nil
		}
		time.Sleep(settle / 3)
	}
	return false, nil
}
