// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/rs/zerolog"

	"sluice/vmtest/lacks"
)

// What old kernels are refused with, and what to do about it.
const (
	atomics    = "BPF atomics that fetch"
	noAtomics  = "dispatch: this kernel lacks BPF atomics that fetch (needs Linux 5.12)"
	fixAtomics = "boot Linux 5.12 or later"
	fixFloor   = "boot Linux 6.1.142, 6.6.94, 6.12.34 or 6.15.3 or later"
)

func (v version) before(major, minor int) bool {
	return v.major < major || v.major == major && v.minor < minor
}

// withoutAtomics says that dispatch can't be loaded here.
func withoutAtomics() bool { return errors.Is(probeFetch(), ebpf.ErrNotSupported) }

// needDispatch skips what can't be tried without dispatch.
func needDispatch(t testing.TB) {
	t.Helper()
	if withoutAtomics() {
		lacks.Skip(t, "dispatch", noAtomics)
	}
}

// needSplice skips what can't be tried below splice's floor.
func needSplice(t testing.TB) {
	t.Helper()
	if err := CheckRelease(); err != nil {
		lacks.Skip(t, "splice", err.Error())
	}
}

// needForward skips what can't be tried where the kernel lacks what offload needs.
func needForward(t testing.TB) {
	t.Helper()
	f, err := NewForward(ForwardOptions{MaxFlows: 1})
	var k *KernelError
	if errors.As(err, &k) {
		lacks.Skip(t, "offload", err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// floorHolds checks the refusal of a kernel for its version.
func floorHolds(t *testing.T, err error) {
	t.Helper()
	var k *KernelError
	if !errors.As(err, &k) || !errors.Is(err, ErrKernel) {
		t.Fatalf("not a kernel error: %v", err)
	}
	for _, part := range []string{"splice: this kernel lacks fixes to sockmap", running().version.String(), "CVE-2025-38165", "6.1.142"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q isn't in %q", part, err)
		}
	}
}

// atomicsMissed checks the refusal of a kernel without them.
func atomicsMissed(t *testing.T, err error) {
	t.Helper()
	var k *KernelError
	if !errors.As(err, &k) || k.Missing != atomics || k.Since != "5.12" || err.Error() != noAtomics {
		t.Errorf("refused with %v", err)
	}
	if k != nil && k.Err == nil {
		t.Error("the kernel's own error is gone")
	}
}

// found is what Probe says of one data path.
func found(t *testing.T, name string) Finding {
	t.Helper()
	for _, f := range Probe() {
		if f.Name == name {
			return f
		}
	}
	t.Fatalf("no finding of %s", name)
	return Finding{}
}

// Where dispatch or splice can't be had that is said in words of ours, with
// what to do, and nothing is left of the attempt.
func TestRefusals(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		old := withoutAtomics()
		Probe() // what is opened once for all: type information, probes
		before := openFDs(t)
		d, err := NewDispatch(zerolog.Nop())
		f := found(t, "dispatch")
		switch {
		case old:
			atomicsMissed(t, err)
			if f.OK || f.Fix != fixAtomics || !strings.Contains(f.Why, atomics) {
				t.Errorf("%+v", f)
			}
		case err != nil || !f.OK:
			t.Errorf("%v, %+v", err, f)
		default:
			must(t, 0, d.Close())
		}
		f = found(t, "splice")
		if err := CheckRelease(); err == nil {
			if !f.OK {
				t.Errorf("%+v", f)
			}
		} else {
			floorHolds(t, err)
			if f.OK || f.Fix != fixFloor || !strings.Contains(f.Why, "CVE-2025-38165") {
				t.Errorf("%+v", f)
			}
		}
		if after := openFDs(t); after > before {
			t.Errorf("%d descriptors, %d before", after, before)
		}
	})
}
