// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// cpio writes an initramfs: the "newc" form of the kernel's
// Documentation/driver-api/early-userspace/buffer-format.rst, uncompressed.
// Parent folders are made by themselves; a path written before is left as it is.
type cpio struct {
	w    *bufio.Writer
	n    int64
	ino  int
	have map[string]bool
}

func newCPIO(w io.Writer) *cpio {
	return &cpio{w: bufio.NewWriterSize(w, 1<<20), have: map[string]bool{"/": true}}
}

// dir adds a folder; mode holds permission bits only.
func (c *cpio) dir(path string, mode uint32) error {
	return c.entry(path, unix.S_IFDIR|mode, 0, 0, nil)
}

// symlink adds a symbolic link.
func (c *cpio) symlink(path, target string) error {
	return c.entry(path, unix.S_IFLNK|0o777, 0, int64(len(target)), strings.NewReader(target))
}

// data adds a file with this content.
func (c *cpio) data(path string, mode uint32, content string) error {
	return c.entry(path, unix.S_IFREG|mode, 0, int64(len(content)), strings.NewReader(content))
}

// console adds the character device that process 1 gets its output from.
func (c *cpio) console() error {
	return c.entry("/dev/console", unix.S_IFCHR|0o600, unix.Mkdev(5, 1), 0, nil)
}

// file adds the content and the permissions of a file of the host.
func (c *cpio) file(path, host string) error {
	f, err := os.Open(host)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s: not a regular file", host)
	}
	return c.entry(path, unix.S_IFREG|uint32(st.Mode().Perm()), 0, st.Size(), io.LimitReader(f, st.Size()))
}

// Close ends the archive. It doesn't close the writer it was made for.
func (c *cpio) Close() error {
	if err := c.header("TRAILER!!!", 0, 0, 0); err != nil {
		return err
	}
	return c.w.Flush()
}

func (c *cpio) entry(path string, mode uint32, dev uint64, size int64, content io.Reader) error {
	path = filepath.Clean("/" + path)
	if c.have[path] {
		return nil
	}
	if err := c.dir(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	c.have[path] = true
	if err := c.header(path[1:], mode, dev, size); err != nil {
		return err
	}
	if content == nil {
		return nil
	}
	n, err := io.Copy(c.w, content)
	c.n += n
	if err == nil && n != size {
		err = fmt.Errorf("%d bytes instead of %d: it changed while it was read", n, size)
	}
	if err != nil {
		return fmt.Errorf("pack %s: %w", path, err)
	}
	return c.pad()
}

func (c *cpio) header(name string, mode uint32, dev uint64, size int64) error {
	c.ino++
	n, err := fmt.Fprintf(c.w, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		c.ino, mode, 0, 0, 1, 0, size, 0, 0, unix.Major(dev), unix.Minor(dev), len(name)+1, 0, name)
	c.n += int64(n)
	if err != nil {
		return err
	}
	return c.pad()
}

// pad fills up to a multiple of four bytes, as the format wants after names and contents.
func (c *cpio) pad() error {
	for ; c.n%4 != 0; c.n++ {
		if err := c.w.WriteByte(0); err != nil {
			return err
		}
	}
	return nil
}
