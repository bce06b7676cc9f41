// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"testing"

	"github.com/rs/zerolog"
)

func TestSelftest(t *testing.T) {
	report, err := Selftest(context.Background(), zerolog.Nop())
	for _, s := range report.Steps {
		t.Logf("%-28s %-5v %8v %s", s.Name, s.OK, s.Took, s.Detail)
	}
	if refused := CheckRelease(); refused != nil {
		floorHolds(t, refused)
		if err == nil || err.Error() != refused.Error() || report.Safe() || len(report.Steps) != 1 || report.Failed().Name != "kernel" {
			t.Errorf("%v, %+v", err, report)
		}
		return
	}
	if err != nil || !report.Safe() {
		t.Fatal(report.Where, err)
	}
}

// Each rule, switched off, must be missed by the step that is there for it.
func TestSelftestFailsWithoutRule(t *testing.T) {
	needSplice(t)
	for _, c := range []struct {
		rule  string
		rules rules
		step  string
	}{
		{"drop the FIN", rules{noDropFin: true}, "end of stream"},
		{"the mark", rules{noMark: true}, "bound and hand-back"},
		{"pass while userspace is behind", rules{noBehind: true}, "bound and hand-back"},
		{"write when it is its turn", rules{noTurn: true}, "bound and hand-back"},
		{"pass without a target", rules{noTarget: true}, "missing target"},
		{"announce", rules{noAnnounce: true}, "hold and announcement"},
		{"kick", rules{noKick: true}, "bytes from before adding"},
		{"trim what came before", rules{noTrim: true}, "repeated bytes"},
		{"trimming that fails", rules{cantTrim: true}, "repeated bytes"},
		{"count before the FIN", rules{noWait: true}, "half-close, counted"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			report, err := selftest(context.Background(), zerolog.Nop(), running(), c.rules)
			if !errors.Is(err, ErrUnsafe) {
				t.Fatalf("error is %v, not ErrUnsafe: %+v", err, report)
			}
			if f := report.Failed(); f == nil || f.Name != c.step {
				t.Errorf("failed step is %+v, not %q", f, c.step)
			} else {
				t.Log(f.Detail)
			}
		})
	}
}
