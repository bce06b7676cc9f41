// SPDX-License-Identifier: Apache-2.0

// Package unixsock looks after the file of a listening unix socket: one that is
// stale makes room for ours, and ours is unlinked only while it is ours.
package unixsock

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// RemoveStale unlinks a socket on which nobody listens. What is no socket, or
// is alive, stays and is an error (EADDRINUSE within, if somebody listens). A
// path at which there is nothing is none.
func RemoveStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("there is a file that is no socket; remove it, or choose another path")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return fmt.Errorf("address in use: %w; stop who listens there, or choose another path", unix.EADDRINUSE)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("address in use, by all appearances: %w: %w", unix.EADDRINUSE, err)
	}
	return os.Remove(path)
}

// File is the file that a socket of ours was bound to.
type File struct {
	path string
	info os.FileInfo
}

// Bound remembers the file that has just been bound at path.
func Bound(path string) (*File, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	return &File{path, info}, nil
}

// Unlink removes the file, once, unless somebody else has taken its path since.
// Nil has none.
func (f *File) Unlink() error {
	if f == nil || f.info == nil {
		return nil
	}
	ours := f.info
	f.info = nil
	if now, err := os.Lstat(f.path); err != nil || !os.SameFile(now, ours) {
		return nil
	}
	return os.Remove(f.path)
}
