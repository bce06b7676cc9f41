// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// mounts of the guest, in order. One that may be missing is of no use to most tests.
var mounts = [...]struct {
	path, kind, options string
	optional            bool
}{
	{path: "/proc", kind: "proc"},
	{path: "/sys", kind: "sysfs"},
	{path: "/dev", kind: "devtmpfs"},
	{path: "/dev/pts", kind: "devpts", options: "mode=0620,ptmxmode=0666"},
	{path: "/dev/shm", kind: "tmpfs"},
	{path: "/run", kind: "tmpfs", options: "mode=0755"},
	{path: "/sys/fs/bpf", kind: "bpf"},
	{path: "/sys/fs/cgroup", kind: "cgroup2"},
	{path: "/sys/kernel/debug", kind: "debugfs", optional: true},
	{path: "/sys/kernel/tracing", kind: "tracefs"},
	{path: "/sys/kernel/security", kind: "securityfs", optional: true},
}

func mountAll() error {
	for _, m := range mounts {
		if err := os.MkdirAll(m.path, 0o755); err != nil && !m.optional {
			return err
		}
		err := unix.Mount(m.kind, m.path, m.kind, 0, m.options)
		// devtmpfs may be there already, mounted by the kernel.
		if err != nil && !errors.Is(err, unix.EBUSY) && !m.optional {
			return fmt.Errorf("mount %s on %s: %w", m.kind, m.path, err)
		}
	}
	for link, target := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0",
		"/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, link); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

// loadModule loads a module file; one that is there already is fine.
func loadModule(m guestModule) error {
	f, err := os.Open(m.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), m.Params, 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load module %s: %w", m.Path, err)
	}
	return nil
}

// furnish does what a distribution's init would have done for a program that is
// started by root: loopback, a host name, room for descriptors and BPF memory
// (counted against RLIMIT_MEMLOCK before 5.11).
func furnish() error {
	if err := unix.Sethostname([]byte("vmtest")); err != nil {
		return err
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("loopback up: %w", err)
	}
	if err := os.WriteFile("/proc/sys/fs/nr_open", []byte("1048576"), 0); err != nil {
		return err
	}
	for limit, most := range map[int]uint64{
		unix.RLIMIT_NOFILE: 1 << 20, unix.RLIMIT_MEMLOCK: unix.RLIM_INFINITY, unix.RLIMIT_CORE: 0,
	} {
		r := unix.Rlimit{Cur: most, Max: most}
		if limit == unix.RLIMIT_NOFILE {
			r.Cur = 1024 // as a login has it: who needs more must ask
		}
		if err := unix.Setrlimit(limit, &r); err != nil {
			return fmt.Errorf("set limit %d: %w", limit, err)
		}
	}
	return nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, r); err != nil {
		return err
	}
	r.SetUint16(r.Uint16() | unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}
