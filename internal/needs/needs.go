// SPDX-License-Identifier: Apache-2.0

// Package needs is how a test says what it can't do without, so that it is skipped
// only for reasons that are known.
package needs

import (
	"errors"
	"testing"

	"sluice/loader"
	"sluice/vmtest/lacks"
)

// Offload skips the test where no session can be forwarded, if the refusal is one that
// the service takes for a reason to use a lower datapath; any other fails the test.
func Offload(t testing.TB) {
	t.Helper()
	f, err := loader.NewForward(loader.ForwardOptions{MaxFlows: 16})
	switch {
	case err == nil:
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	case errors.Is(err, loader.ErrKernel):
		lacks.Skip(t, "offload", err.Error())
	case errors.Is(err, loader.ErrNotPermitted):
		lacks.Skip(t, "root", err.Error())
	default:
		t.Fatalf("no offload, and not for a known reason: %v", err)
	}
}
