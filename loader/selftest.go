// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/rs/zerolog"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// StepResult is what one step of the self-test found.
type StepResult struct {
	Name   string
	OK     bool
	Detail string // what was seen, or what went wrong
	Took   time.Duration
}

// Report is the outcome of the self-test.
type Report struct {
	Where string // "own network namespace" and the like, "loopback", "packets only"
	Steps []StepResult
}

// Safe says that every step went well: the data path may be used.
func (r Report) Safe() bool { return len(r.Steps) > 0 && r.Failed() == nil }

// Failed is the first step that failed, nil if none did.
func (r Report) Failed() *StepResult {
	for i := range r.Steps {
		if !r.Steps[i].OK {
			return &r.Steps[i]
		}
	}
	return nil
}

// ErrUnsafe is matched by the error of Selftest and SelftestOffload when a step failed.
var ErrUnsafe = errors.New("not safe on this kernel")

// stepTime bounds each step, in case the kernel gets stuck.
const stepTime = 2 * time.Second

// totalTime bounds all of them.
const totalTime = 5 * time.Second

// Selftest tries the data path's hazards (docs/splice.md) on real sockets,
// with a Splice of its own, in a network namespace of its own where the
// process may make one (CAP_SYS_ADMIN), else over loopback. It stops at the
// first step that fails, takes well under a second, at most 5 s, and leaves
// nothing. The error is *PermissionError, *KernelError or matches ErrUnsafe
// and names the step; the report holds the steps so far in any case.
func Selftest(ctx context.Context, log zerolog.Logger) (Report, error) {
	return selftest(ctx, log, running(), rules{})
}

func selftest(ctx context.Context, log zerolog.Logger, k kernel, r rules) (Report, error) {
	ctx, cancel := context.WithTimeout(ctx, totalTime)
	defer cancel()
	var (
		report Report
		err    error
		done   = make(chan struct{})
	)
	go func() {
		defer close(done)
		// Not unlocked if the namespace was changed: the thread ends with the
		// goroutine, and the namespace with the thread.
		runtime.LockOSThread()
		report.Where = "loopback"
		if enterNamespace() {
			report.Where = "own network namespace"
		} else {
			defer runtime.UnlockOSThread()
		}
		err = runSteps(ctx, k, r, &report)
	}()
	<-done
	report.log(log, "splice self-test", err)
	return report, err
}

func (r *Report) log(log zerolog.Logger, what string, err error) {
	ev := log.Debug()
	for _, s := range r.Steps {
		ev = ev.Str(s.Name, s.Detail)
	}
	ev.Str("where", r.Where).Err(err).Msg(what)
}

// enterNamespace moves the thread into a fresh network namespace with its
// loopback up. False: not permitted, and the thread is where it was.
func enterNamespace() bool {
	old, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(old)
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return false
	}
	if err := loopbackUp(); err != nil {
		// Without CAP_NET_ADMIN over it a namespace is of no use.
		return unix.Setns(old, unix.CLONE_NEWNET) != nil
	}
	return true
}

func loopbackUp() error {
	h, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return err
	}
	return h.LinkSetUp(lo)
}

// runSteps does them in order, until one fails.
func runSteps(ctx context.Context, k kernel, r rules, report *Report) error {
	started := time.Now()
	if err := checkRelease(k); err != nil {
		report.Steps = append(report.Steps, StepResult{Name: "kernel", Detail: err.Error()})
		return err
	}
	report.Steps = append(report.Steps, StepResult{Name: "kernel", OK: true, Detail: k.String()})
	s, err := newSplice(SpliceOptions{MaxFlows: 64, Mark: testMark}, r)
	if err != nil {
		report.Steps = append(report.Steps, StepResult{Name: "load", Detail: err.Error(), Took: time.Since(started)})
		return err
	}
	defer s.Close()
	report.Steps = append(report.Steps, StepResult{Name: "load", OK: true, Detail: "program and maps", Took: time.Since(started)})
	for _, st := range steps {
		if err := report.try(ctx, "splice", st.name, func() (string, error) { return runStep(ctx, s, st) }); err != nil {
			return err
		}
	}
	return nil
}

// try does one step, if time is left for it, and puts down how it went.
func (r *Report) try(ctx context.Context, what, name string, run func() (string, error)) error {
	if err := ctx.Err(); err != nil {
		r.Steps = append(r.Steps, StepResult{Name: name, Detail: "no time left for it"})
		return fmt.Errorf("%s is %w: step %q: no time left: %w", what, ErrUnsafe, name, err)
	}
	began := time.Now()
	detail, err := run()
	res := StepResult{Name: name, OK: err == nil, Detail: detail, Took: time.Since(began)}
	if err != nil {
		res.Detail = err.Error()
		err = fmt.Errorf("%s is %w: step %q: %w", what, ErrUnsafe, name, err)
	}
	r.Steps = append(r.Steps, res)
	return err
}

// limit is the deadline of a step.
func limit(ctx context.Context) time.Time {
	deadline := time.Now().Add(stepTime)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		return d
	}
	return deadline
}
