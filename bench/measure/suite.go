// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sluice/bench/contender"
	"sluice/bench/lab"
	"sluice/bench/result"
)

// noiseLimit is how many cores may be busy with something else.
const noiseLimit = .15

// Plan is what a run does.
type Plan struct {
	Workloads  []Workload
	Contenders []*contender.Contender
	Auto       *contender.Contender // joins where a workload asks for it; nil: nowhere
	Rounds     int
	Window     time.Duration // of each sample
	Short      bool          // one round of what is slow and steady
	Deadline   time.Time     // zero: none. What has not begun by then is left out, with a note
	Backends   int           // 0: as the workload says
	Pinned     bool          // everything on one core, whatever the workload says
	Congestion string        // TCP's congestion control on all hosts; empty: the usual one
	Dir        string        // for configurations, sockets and logs
	Report     Reporter
}

// Reporter is told how a run goes.
type Reporter interface {
	Bed(text string)                                              // the hosts and contenders are about to start
	Sample(s *result.Series, contender string, round, rounds int) // a sample is about to be taken
	Series(s *result.Series)                                      // all samples are taken
}

// Run measures, and adds to r what it finds. It fails only if it could not go on;
// a sample that failed says so itself.
func (p Plan) Run(ctx context.Context, r *result.Run) error {
	for len(p.Workloads) > 0 {
		kind := p.kind(p.Workloads[0])
		n := 1
		for n < len(p.Workloads) && p.kind(p.Workloads[n]) == kind {
			n++
		}
		if err := p.onBed(ctx, kind, p.Workloads[:n], r); err != nil {
			return err
		}
		p.Workloads = p.Workloads[n:]
	}
	return nil
}

func (p Plan) kind(w Workload) BedKind {
	kind := w.Bed
	if p.Backends > 0 {
		kind.Backends = p.Backends
	}
	kind.Pinned = kind.Pinned || p.Pinned
	if kind.Congestion == "" {
		kind.Congestion = p.Congestion
	}
	kind.Auto = kind.Auto && p.Auto != nil
	return kind
}

func (p Plan) late() bool { return !p.Deadline.IsZero() && time.Now().After(p.Deadline) }

func (p Plan) onBed(ctx context.Context, kind BedKind, list []Workload, r *result.Run) (err error) {
	if p.late() {
		for _, w := range list {
			r.Notes = append(r.Notes, w.Name+" was left out: out of time")
		}
		return nil
	}
	p.Report.Bed(kind.String())
	dir, err := os.MkdirTemp(p.Dir, "bed")
	if err != nil {
		return err
	}
	contenders := p.Contenders
	if kind.Auto {
		contenders = append(slices.Clone(contenders), p.Auto)
	}
	bed, err := NewBed(ctx, kind, contenders, dir)
	if list[0].Bed.Congestion != "" && errors.Is(err, lab.ErrCongestion) {
		for _, w := range list {
			r.Notes = append(r.Notes, fmt.Sprintf("%s was left out: %v", w.Name, err))
		}
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bed.Close()) }()
	bed.short = p.Short
	congestion, err := bed.lab.Congestion()
	if err != nil {
		return err
	}
	switch {
	case list[0].Bed.Congestion != "": // its series say so
	case kind.WAN:
		r.Notes = append(r.Notes, "TCP congestion control over the lossy link: "+congestion)
	default:
		r.Machine.Congestion = congestion
	}
	if kind.WAN && !bed.netem {
		r.Notes = append(r.Notes, "this kernel has no netem (CONFIG_NET_SCH_NETEM): the harness itself, between two tun devices, made the slow and lossy link")
	}
	for _, w := range list {
		if p.late() {
			r.Notes = append(r.Notes, w.Name+" was left out: out of time")
			continue
		}
		s := w.Series
		r.Series = append(r.Series, &s)
		if err := p.rounds(ctx, bed, w, &s, r); err != nil {
			return err
		}
		p.Report.Series(&s)
	}
	return nil
}

// rounds alternates: each round begins with another contender, and every
// second one goes backwards.
func (p Plan) rounds(ctx context.Context, bed *Bed, w Workload, s *result.Series, r *result.Run) error {
	rounds := p.Rounds
	if p.Short && w.Once {
		rounds = 1
	}
	for round := range rounds {
		order := slices.Clone(bed.Entries)
		n := round % len(order)
		order = append(order[n:], order[:n]...)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, e := range order {
			p.Report.Sample(s, e.Name, round+1, rounds)
			sample, err := e.take(ctx, w, p.Window)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			sample.Round, sample.Contender = round, e.Name
			if err != nil {
				sample.Error = err.Error()
			}
			if bed.noise > noiseLimit {
				sample.Marks = append(sample.Marks, "other load")
			}
			s.Samples = append(s.Samples, sample)
		}
		if p.late() && round+1 < rounds {
			r.Notes = append(r.Notes, fmt.Sprintf("%s has %d rounds of %d: out of time", w.Name, round+1, rounds))
			return nil
		}
	}
	return nil
}

func (k BedKind) String() string {
	text := fmt.Sprintf("%d backends", k.Backends)
	if k.Pinned {
		text += ", everything on core 0"
	}
	if k.Tools {
		text += ", and the servers of other load tools"
	}
	if k.Congestion != "" {
		text += ", TCP congestion control " + k.Congestion
	}
	if k.Auto {
		text += ", and sluice with datapath: auto"
	}
	if k.WAN {
		text += fmt.Sprintf(", client behind %s and %d %% loss", wanRTT, wanLoss)
	}
	return text
}

// Temp makes a directory for a run's files.
func Temp() (string, func() error, error) {
	dir, err := os.MkdirTemp("", "sl-bench-")
	if err != nil {
		return "", nil, err
	}
	// Peers that drop privileges have to reach their sockets.
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", nil, err
	}
	return filepath.Clean(dir), func() error { return os.RemoveAll(dir) }, nil
}
