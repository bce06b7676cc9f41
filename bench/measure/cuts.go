// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/bench/contender"
	"sluice/bench/result"
)

// take takes a sample, and adds what the contender's log, if it has one, says of
// the sessions: how many there were, how many were handed over, and after how
// many bytes.
func (e *Entry) take(ctx context.Context, w Workload, d time.Duration) (result.Sample, error) {
	if !e.Log {
		return w.run(ctx, e, d)
	}
	before, err := e.Mark()
	if err != nil {
		return result.Sample{}, err
	}
	s, err := w.run(ctx, e, d)
	if err != nil {
		return s, err
	}
	list, left, reasons, err := e.Since(ctx, before)
	if err = errors.Join(err, e.Alive()); err != nil {
		return result.Sample{}, err
	}
	s.Cuts = cuts(list, e.HandedOver, w.exchange)
	s.Cuts.Reasons = reasons
	if left > 0 {
		s.Marks = append(s.Marks, fmt.Sprintf("sessions without a line in the log: %d", left))
	}
	return s, nil
}

// cuts sums up. exchange is how many bytes a message and its answer have; 0: what
// is moved isn't messages.
func cuts(list []contender.Session, cut func(contender.Session) bool, exchange int) *result.Cuts {
	c := &result.Cuts{Sessions: len(list), Exchange: exchange}
	var early []float64
	for _, s := range list {
		if !cut(s) {
			continue
		}
		n := float64(s.Early())
		early, c.Most = append(early, n), max(c.Most, n)
	}
	if c.Cut = len(early); c.Cut > 0 {
		c.Median = result.Median(early)
	}
	return c
}
