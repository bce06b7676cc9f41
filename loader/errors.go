// SPDX-License-Identifier: Apache-2.0

// Package loader owns every kernel object of the data paths: it loads,
// probes, self-tests and attaches the BPF programs of package bpf, and gives
// typed views of their maps. Nothing is pinned: closing an object leaves nothing
// in the kernel, nor does the end of the process, but for the stub of Devices
// before Linux 6.6.
package loader

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// ErrNotPermitted is matched, by errors.Is, by every *PermissionError.
var ErrNotPermitted = errors.New("not permitted")

// ErrKernel is matched, by errors.Is, by every *KernelError.
var ErrKernel = errors.New("not supported by this kernel")

// PermissionError says which capability a BPF object needs that the process
// doesn't have.
type PermissionError struct {
	What       string // what was tried
	Capability string // what is missing, such as "CAP_BPF, CAP_NET_ADMIN"
	Err        error
}

func (e *PermissionError) Error() string {
	return fmt.Sprintf("%s: not permitted: run as root or grant %s", e.What, e.Capability)
}

// Unwrap gives the kernel's error.
func (e *PermissionError) Unwrap() error { return e.Err }

// Is makes every PermissionError an ErrNotPermitted.
func (e *PermissionError) Is(target error) bool { return target == ErrNotPermitted }

// KernelError says what the running kernel lacks.
type KernelError struct {
	What    string // what was tried
	Missing string // what isn't there
	Since   string // the first kernel that has it, such as "5.12"; or empty
	Err     error
}

func (e *KernelError) Error() string {
	s := fmt.Sprintf("%s: this kernel lacks %s", e.What, e.Missing)
	if e.Since != "" {
		s += fmt.Sprintf(" (needs Linux %s)", e.Since)
	}
	return s
}

// Unwrap gives the kernel's error.
func (e *KernelError) Unwrap() error { return e.Err }

// Is makes every KernelError an ErrKernel.
func (e *KernelError) Is(target error) bool { return target == ErrKernel }

// capability is one that the data paths need.
type capability struct {
	bit  uint
	name string
}

// needed is what loading takes on 6.12 and 6.18, in the order of the messages: nothing
// but CAP_BPF for dispatch; for splice and offload also CAP_PERFMON, which lets a program
// read kernel structures. Linux 5.8; before, all were CAP_SYS_ADMIN.
func needed(what string) []capability {
	caps := []capability{{unix.CAP_BPF, "CAP_BPF"}}
	if what != "dispatch" {
		caps = append(caps, capability{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"}, capability{unix.CAP_PERFMON, "CAP_PERFMON"})
	}
	return caps
}

// missing names the capabilities in caps that the calling thread lacks.
func missing(caps []capability) string {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return ""
	}
	has := func(bit uint) bool { return data[bit/32].Effective&(1<<(bit%32)) != 0 }
	var names []string
	for _, c := range caps {
		// CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON, not for
		// CAP_NET_ADMIN.
		if has(c.bit) || (c.bit != unix.CAP_NET_ADMIN && has(unix.CAP_SYS_ADMIN)) {
			continue
		}
		names = append(names, c.name)
	}
	return strings.Join(names, ", ")
}

// classify gives an error of loading or attaching its type. what was tried
// is dispatch, splice or offload.
func classify(what string, err error) error {
	if err == nil || errors.Is(err, ErrNotPermitted) || errors.Is(err, ErrKernel) {
		return err
	}
	if names := lackedBy(what, err); names != "" {
		return &PermissionError{What: what, Capability: names, Err: err}
	}
	if f := lacking(what); f != nil {
		return &KernelError{What: what, Missing: f.missing, Since: f.since, Err: err}
	}
	if errors.Is(err, ebpf.ErrNotSupported) {
		return &KernelError{What: what, Missing: err.Error(), Err: err}
	}
	return fmt.Errorf("%s: %w", what, err)
}

// lackedBy names the capabilities whose absence explains err; empty: none do.
func lackedBy(what string, err error) string {
	// Without a capability a program can be refused for what it does (EACCES,
	// EINVAL); with all of them only because the kernel is too old for it.
	if !refused(err) && !errors.As(err, new(*ebpf.VerifierError)) {
		return ""
	}
	names := missing(needed(what))
	if names != "" || !refused(err) {
		return names
	}
	if errors.Is(err, unix.EACCES) {
		// 6.1's verifier has dispatch only with CAP_PERFMON, without which it
		// forbids to use a place on the stack twice; 6.12's doesn't mind.
		return missing([]capability{{unix.CAP_PERFMON, "CAP_PERFMON"}})
	}
	if names = missing(needed("splice")); names == "" {
		names = "the use of bpf(), which a security policy or a container's seccomp filter forbids"
	}
	return names
}

// refused says that the kernel refused because of privileges.
func refused(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)
}
