// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"

	"github.com/rs/zerolog"
)

// Finding is what Probe says of one data path.
type Finding struct {
	Name string // dispatch, nat, offload, splice or relay
	OK   bool
	Why  string // one line
	Fix  string // what to do about it; empty if nothing can or has to be done
}

// Probe judges the kernel and the process's privileges for each data path, by
// trying: it loads the programs and closes them again. It doesn't run the
// self-tests, which have the last word on splice and offload.
func Probe() []Finding {
	return []Finding{
		probeDispatch(),
		notYet("nat"),
		probeOffload(),
		probeSplice(),
		{Name: "relay", OK: true, Why: "needs no privilege and no BPF"},
	}
}

// notYet is a data path that the file may name, and that serves nobody.
func notYet(name string) Finding {
	return Finding{Name: name, Why: "not in this version", Fix: "none is needed: splice or relay serves instead"}
}

func probeDispatch() Finding {
	d, err := NewDispatch(zerolog.Nop())
	if err == nil {
		err = d.Close()
	}
	return finding("dispatch", "SK_LOOKUP program loads and attaches", "picks are made at accept, in the same order", err)
}

func probeOffload() Finding {
	f, err := NewForward(ForwardOptions{MaxFlows: 1})
	if err == nil {
		err = f.Close()
	}
	return finding("offload", "programs load and raw sockets can be had; `sluice selftest` tries the rest", "sessions are spliced or relayed", andRaw(err))
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
