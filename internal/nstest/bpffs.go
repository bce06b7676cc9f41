// SPDX-License-Identifier: Apache-2.0

package nstest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/vmtest/lacks"
)

// PinPath is a path on a BPF filesystem that the test alone has: the host's, or where
// there is none, one that is mounted until the test's end. What is left there then
// fails the test.
func PinPath(t testing.TB) string {
	t.Helper()
	dir := "/sys/fs/bpf"
	var s unix.Statfs_t
	if unix.Statfs(dir, &s) != nil || uint32(s.Type) != unix.BPF_FS_MAGIC || unix.Access(dir, unix.W_OK) != nil {
		var err error
		if dir, err = os.MkdirTemp("", "sl-bpf-"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove(dir) })
		if err := unix.Mount("sl-bpf", dir, "bpf", 0, ""); err != nil {
			lacks.Skip(t, "root", "mounting a BPF filesystem: "+err.Error())
		}
		t.Cleanup(func() {
			if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
				t.Error("unmounting the BPF filesystem: ", err)
			}
		})
	}
	name := fmt.Sprintf("sl-%d-%s", os.Getpid(), strings.NewReplacer("/", "-", ".", "-", " ", "-", ",", "-").Replace(t.Name()))
	path := filepath.Join(dir, name[:min(len(name), 200)])
	t.Cleanup(func() {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			left, _ := filepath.Glob(path + "/*")
			t.Errorf("%s is left (%v), with %v", path, err, left)
			os.RemoveAll(path)
		}
	})
	return path
}
