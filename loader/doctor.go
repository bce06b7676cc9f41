// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"

	"github.com/rs/zerolog"
)

// Finding is what Probe says of one data path.
type Finding struct {
	Name string // dispatch, nat, splice or relay
	OK   bool
	Why  string // one line
	Fix  string // what to do about it; empty if nothing can or has to be done
}

// Probe judges the kernel and the process's privileges for each data path, by
// trying: it loads the programs and closes them again. It doesn't run the
// self-test, which has the last word on splice.
func Probe() []Finding {
	return []Finding{
		probeDispatch(),
		{Name: "nat", Why: "not supported yet", Fix: "splice or relay serves instead"},
		probeSplice(),
		{Name: "relay", OK: true, Why: "needs no privilege and no BPF"},
	}
}

func probeDispatch() Finding {
	d, err := NewDispatch(zerolog.Nop())
	if err == nil {
		err = d.Close()
	}
	return finding("dispatch", "SK_LOOKUP program loads and attaches", "picks are made at accept, in the same order", err)
}

func probeSplice() Finding {
	err := CheckRelease()
	if err == nil {
		var s *Splice
		if s, err = NewSplice(SpliceOptions{MaxFlows: 1}); err == nil {
			err = s.Close()
		}
	}
	return finding("splice", "SK_SKB program loads and attaches; `sluice selftest` tries the rest", "sessions are relayed", err)
}

// finding turns an error of loading into a line; instead is what happens
// without.
func finding(name, good, instead string, err error) Finding {
	var (
		perm   *PermissionError
		kernel *KernelError
	)
	switch {
	case err == nil:
		return Finding{Name: name, OK: true, Why: good}
	case errors.As(err, &perm):
		return Finding{Name: name, Why: "lacks " + perm.Capability + ": " + instead, Fix: "run as root, or grant " + perm.Capability}
	case errors.As(err, &kernel):
		fix := "boot a kernel that has it"
		if kernel.Since != "" {
			fix = "boot Linux " + kernel.Since + " or later"
		}
		return Finding{Name: name, Why: "this kernel lacks " + kernel.Missing + ": " + instead, Fix: fix}
	}
	return Finding{Name: name, Why: err.Error() + ": " + instead, Fix: "report it with the output of `sluice version`"}
}
