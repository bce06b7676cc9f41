// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// A probe says that something is missing exactly where it is: one that is
// wrong would blame the wrong thing when a load fails, or nothing.
func TestFeaturesAreFound(t *testing.T) {
	for _, what := range []string{"dispatch", "splice", "offload"} {
		for _, f := range featuresOf(what) {
			var want error
			if v := running().version; f.missing == atomics && v.before(5, 12) || f.missing == "bpf_loop" && v.before(5, 17) {
				want = ebpf.ErrNotSupported
			}
			if err := f.probe(); !errors.Is(err, want) {
				t.Errorf("%s: %s: %v", what, f.missing, err)
			}
		}
	}
}

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		err  error
		is   error // ErrKernel, ErrNotPermitted or nil
		text string
	}{
		{unix.EMFILE, nil, "splice: too many open files"},
		{fmt.Errorf("making it: %w", unix.EPERM), ErrNotPermitted,
			"splice: not permitted: run as root or grant the use of bpf(), which a security policy or a container's seccomp filter forbids"},
		{&ebpf.VerifierError{Cause: unix.EINVAL}, nil, ""},
		{fmt.Errorf("ring buffer: %w", ebpf.ErrNotSupported), ErrKernel, ""},
		{&KernelError{What: "dispatch", Missing: "BPF atomics that fetch", Since: "5.12"}, ErrKernel,
			noAtomics},
	} {
		got := classify("splice", c.err)
		if c.text != "" && got.Error() != c.text {
			t.Errorf("%v: %q instead of %q", c.err, got, c.text)
		}
		for _, kind := range []error{ErrKernel, ErrNotPermitted} {
			if errors.Is(got, kind) != (kind == c.is) {
				t.Errorf("%v: is %v: %v", c.err, kind, errors.Is(got, kind))
			}
		}
	}
}

// An old kernel is refused before anything is tried on it.
func TestSelftestGate(t *testing.T) {
	report, err := selftest(context.Background(), zerolog.Nop(), describe(0, "", "5.15.0-100-generic"), rules{})
	if !errors.Is(err, ErrKernel) || len(report.Steps) != 1 || report.Failed() == nil || report.Failed().Name != "kernel" {
		t.Errorf("%v, %+v", err, report)
	}
}

// A cancelled or late context ends it, and not as a success.
func TestSelftestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	report, err := selftest(ctx, zerolog.Nop(), describe(0, "", "6.18.0"), rules{}) // whichever runs here
	if !errors.Is(err, context.Canceled) || report.Safe() {
		t.Errorf("%v, %+v", err, report)
	}
}

// Where IPv6 is off its step says so, and is no failure.
func TestSelftestWithoutIPv6(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		must(t, 0, writeSysctl("net/ipv6/conf/all/disable_ipv6", "1"))
		s := must1(t, func() (*Splice, error) { return newSplice(SpliceOptions{MaxFlows: 4}, rules{}) })
		defer s.Close()
		detail, err := runStep(context.Background(), s, step{ip6: true, run: stepRedirect})
		if err != nil || detail != "IPv6 is off here" {
			t.Errorf("%q, %v", detail, err)
		}
	})
}
