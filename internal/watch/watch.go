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

// settle is how long a content must stand before it is believed where a read
// lease can't be had: the kernel tells of a truncation or a write only after it.
const settle = 10 * time.Millisecond

// held is how long a writer may have the file open without writing to it
// before its content is believed all the same.
const held = 100 * time.Millisecond

// lookEvery is how often the file is looked at without having been told of:
// inotify says nothing of a file system that is mounted, of what a server does
// to its files, or of what there was no watch left for (max_user_watches).
const lookEvery = 5 * time.Second

// maxBytes bounds what is read of a file; whoever parses it has a lower bound.
const maxBytes = 64 << 20

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
	read   content           // what Read saw last
	stop   chan struct{}
}

// content tells one state of the file from another, as well as can be told
// without reading it. The zero value: there is none.
type content struct {
	dev, ino, size uint64
	modified       int64
}

func contentOf(path string) content {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return content{}
	}
	return content{uint64(st.Dev), st.Ino, uint64(st.Size), st.Mtim.Nano()}
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
func New(path string) (*Watcher, error) { return newWatcher(path, lookEvery) }

func newWatcher(path string, look time.Duration) (*Watcher, error) {
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
		changed: make(chan struct{}, 1), done: make(chan struct{}), stop: make(chan struct{}),
		dirs: map[int32]*dir{}, file: fileWatch{wd: -1},
		opened: map[string]bool{}, moved: map[uint32]string{}, dirty: true,
	}
	if err := w.follow(); err != nil {
		w.f.Close()
		return nil, fmt.Errorf("watching %s: %w", path, err)
	}
	go w.listen()
	go w.lookAgain(look)
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
	close(w.stop)
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
		stop := w.closed
		w.mu.Unlock()
		if stop {
			return
		}
	}
}

// lookAgain finds what no event has told, until Close.
func (w *Watcher) lookAgain(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for last := (content{}); ; {
		select {
		case <-w.stop:
			return
		case <-tick.C:
		}
		now := contentOf(w.path) // not under the lock: it may take its time
		stands := now == last    // nothing tells when its writer is done
		last = now
		w.mu.Lock()
		w.drain()
		if stands && now != w.read && !w.closed {
			w.dirty = true
			_ = w.follow() // what can't be watched is looked at again
			w.tell()
		}
		w.mu.Unlock()
	}
}

// tell signals Changed if Read has something to return. Under w.mu.
func (w *Watcher) tell() {
	if !w.dirty || w.file.writing {
		return
	}
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// Read returns the file's finished content. ErrWriting: not now. Other errors
// are those of opening and reading, fs.ErrNotExist among them.
func (w *Watcher) Read() ([]byte, error) {
	var busySince time.Time
	var busyMods uint64
	for {
		w.mu.Lock()
		w.drain()
		if w.file.writing {
			w.mu.Unlock()
			return nil, ErrWriting
		}
		w.dirty = false
		seen, mods := w.file, w.mods
		w.mu.Unlock()

		before := contentOf(w.path)
		data, st, got, err := slurp(w.path)
		w.mu.Lock()
		w.read = before
		w.mu.Unlock()
		if err != nil {
			return nil, err
		}
		switch got {
		case leaseRefused:
			time.Sleep(settle)
		case leaseBusy:
			// Wait for the writer to write or to close, a while.
			if busySince.IsZero() || busyMods != mods {
				busySince, busyMods = time.Now(), mods
			}
			time.Sleep(time.Millisecond)
			if time.Since(busySince) < held {
				w.again()
				continue
			}
		}
		if w.accept(seen, mods, st) {
			return data, nil
		}
	}
}

// again says that what was read last is void.
func (w *Watcher) again() {
	w.mu.Lock()
	w.dirty = true
	w.mu.Unlock()
}

// accept says whether what was read of the inode st is what seen had when
// there had been mods modifications.
func (w *Watcher) accept(seen fileWatch, mods uint64, st *syscall.Stat_t) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drain()
	if st.Ino == seen.ino && uint64(st.Dev) == seen.dev {
		if w.mods == mods && !(w.file.writing && w.file.ino == seen.ino) {
			return true
		}
		w.dirty = true
		return false
	}
	if w.file.ino != seen.ino || w.file.dev != seen.dev {
		w.dirty = true
		return false
	}
	// The path leads elsewhere without an event that we could see. If it still
	// can't be followed, what was read is all that can be had.
	if w.closed || w.follow() != nil || w.file.ino == seen.ino && w.file.dev == seen.dev {
		w.dirty = false
		return true
	}
	return false
}

// lease says what became of a read lease.
type lease int

const (
	leaseHeld    lease = iota // nobody had the file open for writing
	leaseBusy                 // somebody has
	leaseRefused              // not our file, or not on this file system
)

// slurp reads the file under a read lease if it can get one: the kernel grants
// it only while nobody has the file open for writing, and holds up who opens
// it then for the moment that the read takes. Only the file's owner may.
func slurp(path string) (data []byte, st *syscall.Stat_t, got lease, err error) {
	// Opening anything else may hold us up, or do something: to a device, or to
	// the other end of a FIFO.
	if fi, err := os.Stat(path); err == nil && !fi.Mode().IsRegular() {
		return nil, nil, leaseRefused, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, leaseRefused, err
	}
	defer f.Close() // ends the lease
	fi, err := f.Stat()
	if err != nil {
		return nil, nil, leaseRefused, err
	}
	if !fi.Mode().IsRegular() {
		return nil, nil, leaseRefused, fmt.Errorf("%s is not a regular file", path)
	}
	switch _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK); err {
	case nil:
		got = leaseHeld
	case unix.EAGAIN:
		got = leaseBusy
	default:
		got = leaseRefused
	}
	data, err = io.ReadAll(io.LimitReader(f, maxBytes))
	if err != nil {
		return nil, nil, got, err
	}
	return data, fi.Sys().(*syscall.Stat_t), got, nil
}
