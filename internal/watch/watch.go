// SPDX-License-Identifier: Apache-2.0

// Package watch tells when a file has a new, finished content, however it is
// edited: in place, renamed into place, through a chain of symlinks (a mounted
// ConfigMap), deleted and created. A file is being written from IN_MODIFY until
// IN_CLOSE_WRITE and is not read meanwhile: the beginning of a file can be a
// valid file.
package watch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrWriting means that the file is being written. Changed will be signalled
// when its writer closes it.
var ErrWriting = errors.New("the file is being written")

// settle is how long a content must stand before it is believed: the kernel
// tells of a write just after it.
const settle = time.Millisecond

// patience is for how long a content that keeps changing is read with settle;
// after it whatever stood still during the read itself will do.
const patience = 250 * time.Millisecond

// Watcher watches one file. Close it to give back its descriptor and goroutine.
type Watcher struct {
	path    string
	f       *os.File
	changed chan struct{}
	done    chan struct{}

	mu     sync.Mutex
	fd     int
	closed bool
	dirs   map[int32]*dir    // by watch descriptor
	file   fileWatch         // the file at the end of the chain
	opened map[string]bool   // files created in a watched directory and not closed yet
	moved  map[uint32]string // rename cookies of those
	dirty  bool              // there may be something that Read hasn't returned
	mods   uint64            // modifications of the file seen
	since  time.Time         // since when reads were voided; zero: the last one wasn't
}

// dir is a watched directory and the names in it that the path goes through.
type dir struct {
	path  string
	names map[string]bool
}

// fileWatch is the inode at the end of the chain.
type fileWatch struct {
	wd      int32 // -1: no file, or it can't be watched
	dev     uint64
	ino     uint64
	path    string
	writing bool
}

// New starts watching path. Symlinks, and the file itself, may come and go.
func New(path string) (*Watcher, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("watching %s: %w", path, err)
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watching %s: inotify: %w (see fs.inotify.max_user_instances)", path, err)
	}
	w := &Watcher{
		path: abs, f: os.NewFile(uintptr(fd), "inotify"), fd: fd,
		changed: make(chan struct{}, 1), done: make(chan struct{}),
		dirs: map[int32]*dir{}, file: fileWatch{wd: -1},
		opened: map[string]bool{}, moved: map[uint32]string{}, dirty: true,
	}
	if err := w.follow(); err != nil {
		w.f.Close()
		return nil, fmt.Errorf("watching %s: %w", path, err)
	}
	go w.listen()
	return w, nil
}

// Changed is signalled when there may be something new to Read.
func (w *Watcher) Changed() <-chan struct{} { return w.changed }

// Close ends the watch.
func (w *Watcher) Close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return nil
	}
	w.closed = true
	w.mu.Unlock()
	err := w.f.Close()
	<-w.done
	return err
}

// Pending says whether there may be something that Read hasn't returned yet.
func (w *Watcher) Pending() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drain()
	return w.dirty
}

// Stands says whether what Read returned has not been modified in place since.
// Another file renamed into its place is a later edit and doesn't count.
func (w *Watcher) Stands() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	mods, inode := w.mods, w.file.ino
	w.drain()
	return w.mods == mods && !(w.file.writing && w.file.ino == inode)
}

// listen turns inotify's descriptor into signals until Close.
func (w *Watcher) listen() {
	defer close(w.done)
	rc, err := w.f.SyscallConn()
	if err != nil {
		return
	}
	for {
		err := rc.Read(func(uintptr) bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.closed || w.drain()
		})
		if err != nil {
			return
		}
		w.mu.Lock()
		tell := w.dirty && !w.file.writing
		stop := w.closed
		w.mu.Unlock()
		if stop {
			return
		}
		if tell {
			select {
			case w.changed <- struct{}{}:
			default:
			}
		}
	}
}

// Read returns the file's finished content. ErrWriting: not now. Other errors
// are those of opening and reading, fs.ErrNotExist among them.
func (w *Watcher) Read() ([]byte, error) {
	for {
		w.mu.Lock()
		w.drain()
		if w.file.writing {
			w.mu.Unlock()
			return nil, ErrWriting
		}
		w.dirty = false
		mods, ino, dev := w.mods, w.file.ino, w.file.dev
		impatient := !w.since.IsZero() && time.Since(w.since) > patience
		w.mu.Unlock()

		data, st, err := slurp(w.path)
		if err != nil {
			return nil, err
		}
		if !impatient {
			time.Sleep(settle)
		}
		w.mu.Lock()
		w.drain()
		same := st.Ino == ino && uint64(st.Dev) == dev
		if same && w.mods == mods && !(w.file.writing && w.file.ino == ino) {
			w.since = time.Time{}
			w.mu.Unlock()
			return data, nil
		}
		w.dirty = true
		if w.since.IsZero() {
			w.since = time.Now()
		}
		if !same && w.file.ino == ino && w.file.dev == dev {
			// The chain changed without an event that we could see.
			if err := w.follow(); err != nil || w.file.ino == ino && w.file.dev == dev {
				// It can't be followed: what was read is all that can be had.
				w.dirty = false
				w.mu.Unlock()
				return data, nil
			}
		}
		w.mu.Unlock()
	}
}

func slurp(path string) ([]byte, *syscall.Stat_t, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s is not a regular file", path)
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return nil, nil, err
	}
	return data, fi.Sys().(*syscall.Stat_t), nil
}
