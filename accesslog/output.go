// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// stdoutPath is the path that stands for standard output.
const stdoutPath = "-"

// output is where log lines go: a regular file, or something that may not take
// them at once (a pipe, a terminal, a socket, a device). One goroutine uses it.
type output struct {
	fd      int
	regular bool
	owned   bool // close closes fd
	made    bool // the file wasn't there before
	dev     uint64
	ino     uint64
}

// openOutput opens the file, and makes it if it isn't there. It never waits:
// not for somebody to read a FIFO either. The caller closes it.
func openOutput(path string) (*output, error) {
	if path == stdoutPath {
		o := &output{fd: unix.Stdout}
		if err := o.identify(); err != nil {
			return nil, fmt.Errorf("access log: standard output: %w", err)
		}
		return o, nil
	}
	fd, made, err := openAppend(path)
	if err != nil {
		return nil, fmt.Errorf("access log %s can't be opened, must be a file that can be written: %w", path, err)
	}
	o := &output{fd: fd, owned: true, made: made}
	if err := o.identify(); err != nil {
		o.close()
		return nil, fmt.Errorf("access log %s: %w", path, err)
	}
	return o, nil
}

// openAppend says whether it made the file.
func openAppend(path string) (fd int, made bool, err error) {
	const flags = unix.O_APPEND | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	var st unix.Stat_t
	if unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO {
		// Being a reader too, it opens without another one, and what is in the
		// pipe outlives the reader's restart.
		fd, err := ignoringEINTR(func() (int, error) { return unix.Open(path, unix.O_RDWR|flags, 0) })
		if !errors.Is(err, unix.EACCES) {
			return fd, false, err
		}
	}
	open := func(how int) (int, error) {
		return ignoringEINTR(func() (int, error) { return unix.Open(path, unix.O_WRONLY|unix.O_CREAT|how|flags, 0o640) })
	}
	if fd, err = open(unix.O_EXCL); err == nil || !errors.Is(err, unix.EEXIST) {
		return fd, err == nil, err
	}
	fd, err = open(0) // it is there, or a link leads to where it will be
	return fd, false, err
}

// unmake removes the file if opening it has made it and nobody has written to
// it, nor put another in its place.
func (o *output) unmake(path string) {
	var open, there unix.Stat_t
	if o.made && unix.Fstat(o.fd, &open) == nil && open.Size == 0 &&
		unix.Lstat(path, &there) == nil && there.Dev == open.Dev && there.Ino == open.Ino {
		_ = unix.Unlink(path)
	}
}

func (o *output) identify() error {
	var st unix.Stat_t
	if err := unix.Fstat(o.fd, &st); err != nil {
		return err
	}
	o.regular = st.Mode&unix.S_IFMT == unix.S_IFREG
	o.dev, o.ino = st.Dev, st.Ino
	return nil
}

// same tells whether both are one file.
func (o *output) same(p *output) bool { return o.dev == p.dev && o.ino == p.ino }

// write is one write(2). What isn't a regular file is asked first whether it
// has room, as a descriptor that others share can't be made non-blocking:
// EAGAIN says that it has none.
func (o *output) write(b []byte) (int, error) {
	if !o.regular && !o.writable(0) {
		return 0, unix.EAGAIN
	}
	n, err := ignoringEINTR(func() (int, error) { return unix.Write(o.fd, b) })
	if n == 0 && err == nil {
		err = unix.EIO
	}
	return max(n, 0), err
}

// writable waits until there is room, or an error to be told by write.
func (o *output) writable(wait time.Duration) bool {
	p := []unix.PollFd{{Fd: int32(o.fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(p, int(wait.Milliseconds()))
	return n > 0 && err == nil
}

// cut takes the last n bytes that were written off the file again. False: it
// doesn't end with them (somebody else has written), or it can't be cut.
func (o *output) cut(n int) bool {
	if !o.regular {
		return false
	}
	// O_APPEND leaves the offset behind what was written.
	end, err := unix.Seek(o.fd, 0, unix.SEEK_CUR)
	if err != nil || end < int64(n) {
		return false
	}
	var st unix.Stat_t
	if unix.Fstat(o.fd, &st) != nil || st.Size != end {
		return false
	}
	end -= int64(n)
	if _, err := ignoringEINTR(func() (int, error) { return 0, unix.Ftruncate(o.fd, end) }); err != nil {
		return false
	}
	_, err = unix.Seek(o.fd, end, unix.SEEK_SET)
	return err == nil
}

func (o *output) close() {
	if o.owned {
		unix.Close(o.fd)
	}
}

func ignoringEINTR(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
