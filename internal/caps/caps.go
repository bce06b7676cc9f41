// SPDX-License-Identifier: Apache-2.0

// Package caps reads and drops capabilities, on every thread of the process:
// a Go program can't know which thread runs what. libcap's psx does that with
// and without cgo.
package caps

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// Needed are the capabilities that a running sluice keeps: BPF programs and
// maps, attaching them, and binding ports below 1024 in a live edit.
func Needed() []cap.Value {
	return []cap.Value{cap.NET_ADMIN, cap.BPF, cap.PERFMON, cap.NET_BIND_SERVICE}
}

// Have says whether the process has v in its effective set.
func Have(v cap.Value) bool {
	on, err := cap.GetProc().GetFlag(cap.Effective, v)
	return err == nil && on
}

// Missing are those of vs that the process doesn't have, as CAP_X.
func Missing(vs ...cap.Value) []string {
	var out []string
	for _, v := range vs {
		if !Have(v) {
			out = append(out, strings.ToUpper(v.String()))
		}
	}
	return out
}

// DropFileOverride gives up CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, so that
// files are opened at start with the rights that a reload will have.
func DropFileOverride() error {
	c := cap.GetProc()
	changed := false
	for _, v := range []cap.Value{cap.DAC_OVERRIDE, cap.DAC_READ_SEARCH} {
		for _, f := range []cap.Flag{cap.Effective, cap.Permitted, cap.Inheritable} {
			if on, err := c.GetFlag(f, v); err != nil || !on {
				continue
			}
			if err := c.SetFlag(f, false, v); err != nil {
				return fmt.Errorf("dropping %v: %w", v, err)
			}
			changed = true
		}
	}
	if !changed {
		return nil
	}
	if err := c.SetProc(); err != nil {
		return fmt.Errorf("dropping CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: %w", err)
	}
	return nil
}

// Drop reduces the process to keep: effective and permitted (what it has of
// them), nothing inheritable or ambient, nothing else in the bounding set, and
// no_new_privs. What it lacks the right to drop (the bounding set, without
// CAP_SETPCAP) stays as it is and is no error.
func Drop(keep ...cap.Value) error {
	var errs []error
	// The bounding set first: changing it takes CAP_SETPCAP, which goes below.
	if Have(cap.SETPCAP) {
		errs = append(errs, dropBounding(keep))
	}
	errs = append(errs, dropSets(keep))
	if _, err := cap.Prctlw(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		errs = append(errs, fmt.Errorf("setting no_new_privs: %w", err))
	}
	return errors.Join(errs...)
}

func dropBounding(keep []cap.Value) error {
	var gone []cap.Value
	for v := cap.Value(0); v < cap.MaxBits(); v++ {
		if in, err := cap.GetBound(v); err == nil && in && !contains(keep, v) {
			gone = append(gone, v)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	if err := cap.DropBound(gone...); err != nil {
		return fmt.Errorf("reducing the bounding set: %w", err)
	}
	return nil
}

func dropSets(keep []cap.Value) error {
	if err := cap.ResetAmbient(); err != nil {
		return fmt.Errorf("clearing the ambient capabilities: %w", err)
	}
	have, next := cap.GetProc(), cap.NewSet()
	for _, v := range keep {
		for _, f := range []cap.Flag{cap.Effective, cap.Permitted} {
			on, err := have.GetFlag(f, v)
			if err != nil || !on {
				continue
			}
			if err := next.SetFlag(f, true, v); err != nil {
				return fmt.Errorf("keeping %v: %w", v, err)
			}
		}
	}
	if err := next.SetProc(); err != nil {
		return fmt.Errorf("reducing capabilities to %q: %w", next, err)
	}
	return nil
}

func contains(vs []cap.Value, v cap.Value) bool {
	for _, w := range vs {
		if w == v {
			return true
		}
	}
	return false
}
