// SPDX-License-Identifier: Apache-2.0

// Package sysfd raises the process's limit of descriptors.
package sysfd

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Raise sets the soft limit of open descriptors to the hard one and returns
// the limit in force, also with an error. No privilege is needed.
func Raise() (limit uint64, err error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0, fmt.Errorf("reading the limit of descriptors: %w", err)
	}
	if r.Cur >= r.Max {
		return r.Cur, nil
	}
	want := unix.Rlimit{Cur: r.Max, Max: r.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &want); err != nil {
		return r.Cur, fmt.Errorf("raising the limit of descriptors from %d to %d: %w", r.Cur, r.Max, err)
	}
	return r.Max, nil
}
