// SPDX-License-Identifier: Apache-2.0

package unixsock

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func listen(t *testing.T, path string) net.Listener {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	t.Cleanup(func() { l.Close() })
	return l
}

func there(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestRemoveStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := RemoveStale(path); err != nil {
		t.Errorf("nothing there: %v", err)
	}
	l := listen(t, path)
	if err := RemoveStale(path); !errors.Is(err, unix.EADDRINUSE) || !there(path) {
		t.Errorf("somebody listens: %v", err)
	}
	l.Close()
	if err := RemoveStale(path); err != nil || there(path) {
		t.Errorf("a stale one: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := RemoveStale(path); err == nil || !there(path) {
		t.Errorf("a file: %v", err)
	}
}

func TestUnlink(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listen(t, path)
	ours, err := Bound(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+".aside"); err != nil {
		t.Fatal(err)
	}
	listen(t, path)
	other, err := Bound(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := ours.Unlink(); err != nil || !there(path) {
		t.Errorf("somebody else's: %v", err)
	}
	if err := other.Unlink(); err != nil || there(path) {
		t.Errorf("ours: %v", err)
	}
	listen(t, path)
	if err := other.Unlink(); err != nil || !there(path) {
		t.Errorf("a second time: %v", err)
	}
	if err := (*File)(nil).Unlink(); err != nil {
		t.Error(err)
	}
}
