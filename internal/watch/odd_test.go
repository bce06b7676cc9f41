// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/internal/caps"
)

// TestOddThings puts something at the path, or on the way to it, that is no
// file, and takes it away again: the watch is as good as before.
func TestOddThings(t *testing.T) {
	aside := func(t *testing.T, path string) { do(t, os.Rename(path, path+".aside")) }
	type act = func(t *testing.T, path string)
	tests := []struct {
		name      string
		put, take act
	}{
		{"directory",
			func(t *testing.T, path string) { aside(t, path); do(t, os.Mkdir(path, 0o755)) },
			func(t *testing.T, path string) { do(t, os.Remove(path)) }},
		{"directory with a file",
			func(t *testing.T, path string) {
				aside(t, path)
				do(t, os.Mkdir(path, 0o755))
				write(t, filepath.Join(path, filepath.Base(path)), "in it")
			},
			func(t *testing.T, path string) { do(t, os.RemoveAll(path)) }},
		{"symlink to a directory",
			func(t *testing.T, path string) { aside(t, path); do(t, os.Symlink("./", path)) },
			func(t *testing.T, path string) { do(t, os.Remove(path)) }},
		{"fifo",
			func(t *testing.T, path string) { aside(t, path); do(t, unix.Mkfifo(path, 0o600)) },
			func(t *testing.T, path string) { do(t, os.Remove(path)) }},
		{"socket",
			func(t *testing.T, path string) {
				aside(t, path)
				l, err := net.Listen("unix", path)
				do(t, err)
				l.(*net.UnixListener).SetUnlinkOnClose(false)
				l.Close()
			},
			func(t *testing.T, path string) { do(t, os.Remove(path)) }},
		{"device",
			func(t *testing.T, path string) { aside(t, path); do(t, os.Symlink("/dev/zero", path)) },
			func(t *testing.T, path string) { do(t, os.Remove(path)) }},
		{"symlink to itself",
			func(t *testing.T, path string) { aside(t, path); do(t, os.Symlink(filepath.Base(path), path)) },
			func(t *testing.T, path string) { do(t, os.Remove(path)) }},
		{"symlinks in a circle",
			func(t *testing.T, path string) {
				aside(t, path)
				do(t, os.Symlink(path+".2", path))
				do(t, os.Symlink(path, path+".2"))
			},
			func(t *testing.T, path string) { do(t, os.Remove(path)) }},
		{"directory moved away and back",
			func(t *testing.T, path string) { d := filepath.Dir(path); do(t, os.Rename(d, d+".aside")) },
			func(t *testing.T, path string) {
				d := filepath.Dir(path)
				do(t, os.Rename(d+".aside", d))
				aside(t, path)
			}},
		{"file in place of the directory",
			func(t *testing.T, path string) {
				d := filepath.Dir(path)
				do(t, os.Rename(d, d+".aside"))
				write(t, d, "no directory")
			},
			func(t *testing.T, path string) {
				d := filepath.Dir(path)
				do(t, os.Remove(d))
				do(t, os.Rename(d+".aside", d))
				aside(t, path)
			}},
		{"symlink to itself in place of the directory",
			func(t *testing.T, path string) {
				d := filepath.Dir(path)
				do(t, os.Rename(d, d+".aside"))
				do(t, os.Symlink(d, d))
			},
			func(t *testing.T, path string) {
				d := filepath.Dir(path)
				do(t, os.Remove(d))
				do(t, os.Rename(d+".aside", d))
				aside(t, path)
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := filepath.Join(t.TempDir(), "top", "etc")
			do(t, os.MkdirAll(d, 0o755))
			path := filepath.Join(d, "backends.yaml")
			write(t, path, "old")
			f := followLooking(t, path, time.Hour)
			f.wants(t, "old")
			for i := range 2 {
				tt.put(t, path)
				time.Sleep(30 * time.Millisecond)
				tt.take(t, path)
				time.Sleep(30 * time.Millisecond)
				write(t, path, fmt.Sprint("new ", i))
				f.wants(t, fmt.Sprint("new ", i))
				write(t, path, fmt.Sprint("again ", i))
				f.wants(t, fmt.Sprint("again ", i))
				do(t, os.RemoveAll(path+".aside"))
				os.Remove(path + ".2")
			}
			f.never(t, "in it", "no directory")
		})
	}
}

// TestOverflow: what came while the kernel's queue was full is found.
func TestOverflow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "backends.yaml")
	write(t, path, "old")
	f := followLooking(t, path, time.Hour)
	f.wants(t, "old")
	b, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	do(t, err)
	var room int
	fmt.Sscan(string(b), &room)
	if room > 1<<17 {
		t.Skipf("fs.inotify.max_queued_events is %d", room)
	}
	f.w.mu.Lock() // the watcher doesn't read
	for i := range room/2 + 10 {
		other := fmt.Sprint(path, ".", i%2)
		write(t, other, "")
		do(t, os.Remove(other))
	}
	write(t, path, "new")
	f.w.mu.Unlock()
	f.wantsWithin(t, "new", 20*time.Second) // there is much to read first
	write(t, path, "again")
	f.wants(t, "again")
}

// TestNothingTells: a change without an event is found, once it stands.
func TestNothingTells(t *testing.T) {
	path := filepath.Join(t.TempDir(), "backends.yaml")
	write(t, path, "old")
	f := followLooking(t, path, 20*time.Millisecond)
	f.wants(t, "old")
	f.w.mu.Lock()
	for wd := range f.w.dirs {
		unix.InotifyRmWatch(f.w.fd, uint32(wd))
	}
	unix.InotifyRmWatch(f.w.fd, uint32(f.w.file.wd))
	do(t, os.WriteFile(path+".new", []byte("new"), 0o600))
	do(t, os.Rename(path+".new", path))
	for f.w.drain() { // so that not even their end is told
	}
	for len(f.w.changed) > 0 {
		<-f.w.changed
	}
	f.w.mu.Unlock()
	f.wants(t, "new")
	write(t, path, "again")
	f.wants(t, "again")
}

// TestPrivileged runs what needs a process of its own: without the right to
// override permissions, in a mount namespace.
func TestPrivileged(t *testing.T) {
	const inside = "SLUICE_WATCH_TEST_INSIDE"
	if os.Getenv(inside) == "" {
		if os.Geteuid() != 0 {
			t.Skip("mounts, and gives rights up: run as root")
		}
		cmd := exec.Command(os.Args[0], "-test.run=^TestPrivileged$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		out, err := cmd.CombinedOutput()
		if err != nil || strings.Contains(string(out), "--- SKIP") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	do(t, unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	t.Run("mounted and unmounted", testMounted)
	do(t, caps.DropFileOverride())
	t.Run("permissions", testPermissions)
}

func testMounted(t *testing.T) {
	d := filepath.Join(t.TempDir(), "etc")
	do(t, os.Mkdir(d, 0o755))
	path := filepath.Join(d, "backends.yaml")
	write(t, path, "below")
	f := followLooking(t, path, 20*time.Millisecond)
	f.wants(t, "below")
	for i := range 2 {
		do(t, unix.Mount("none", d, "tmpfs", 0, ""))
		write(t, path, fmt.Sprint("mounted ", i))
		f.wants(t, fmt.Sprint("mounted ", i))
		write(t, path, "again")
		f.wants(t, "again")
		do(t, unix.Unmount(d, unix.MNT_DETACH))
		f.wants(t, "below")
	}
	write(t, path, "edited")
	f.wants(t, "edited")
}

func testPermissions(t *testing.T) {
	top := t.TempDir()
	d := filepath.Join(top, "a", "b")
	do(t, os.MkdirAll(d, 0o755))
	path := filepath.Join(d, "backends.yaml")
	write(t, path, "old")
	f := followLooking(t, path, time.Hour)
	f.wants(t, "old")
	n := 0
	for _, what := range []string{path, d, filepath.Dir(d)} {
		for _, mode := range []os.FileMode{0, 0o100, 0o400} {
			mode &= 0o777
			n++
			fi, err := os.Stat(what)
			do(t, err)
			do(t, os.Chmod(what, mode))
			time.Sleep(20 * time.Millisecond)
			do(t, os.Chmod(what, fi.Mode().Perm()))
			time.Sleep(20 * time.Millisecond)
			write(t, path, fmt.Sprint("edit ", n))
			f.wants(t, fmt.Sprint("edit ", n))
			// Edited while we may not see it.
			do(t, os.Rename(path, path+".aside"))
			do(t, os.WriteFile(path+".new", []byte(fmt.Sprint("unseen ", n)), 0o644))
			time.Sleep(10 * time.Millisecond)
			do(t, os.Rename(path+".new", path))
			do(t, os.Chmod(what, mode))
			time.Sleep(20 * time.Millisecond)
			do(t, os.Chmod(what, fi.Mode().Perm()))
			f.wants(t, fmt.Sprint("unseen ", n))
			do(t, os.Remove(path+".aside"))
		}
	}
}
