// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"encoding/binary"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A directory on the way tells when it goes itself; only one that holds a
// symlink of the chain, the file, or the first thing missing tells of its
// entries, so that a busy /tmp above doesn't wake us.
const (
	// IN_ATTRIB: permissions may have been given back.
	selfMask  = unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ATTRIB | unix.IN_ONLYDIR
	entryMask = selfMask | unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_CLOSE_WRITE
	fileMask  = unix.IN_MODIFY | unix.IN_CLOSE_WRITE | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
)

// maxLinks is the kernel's limit of symlinks in one look-up.
const maxLinks = 40

// maxOpened bounds what is remembered of files that are being created beside ours.
const maxOpened = 1024

// drain handles all events there are; it says whether there were any.
// Under w.mu.
func (w *Watcher) drain() bool {
	var buf [8192]byte
	any, refollow := false, false
	for !w.closed {
		n, err := unix.Read(w.fd, buf[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			break
		}
		any = true
		for off := 0; off+unix.SizeofInotifyEvent <= n; {
			wd := int32(binary.NativeEndian.Uint32(buf[off:]))
			mask := binary.NativeEndian.Uint32(buf[off+4:])
			cookie := binary.NativeEndian.Uint32(buf[off+8:])
			size := int(binary.NativeEndian.Uint32(buf[off+12:]))
			name := strings.TrimRight(string(buf[off+unix.SizeofInotifyEvent:off+unix.SizeofInotifyEvent+size]), "\x00")
			off += unix.SizeofInotifyEvent + size
			if w.event(wd, mask, cookie, name) {
				refollow = true
			}
		}
		if refollow {
			// At once, so that what comes next is seen on the new file.
			w.follow()
			refollow = false
		}
	}
	if any {
		w.tell()
	}
	return any
}

// event handles one event; true: the chain may lead elsewhere now.
func (w *Watcher) event(wd int32, mask, cookie uint32, name string) bool {
	if mask&unix.IN_Q_OVERFLOW != 0 {
		// What was lost is unknown: begin anew, believing nothing old.
		w.mods++
		w.dirty, w.file.writing = true, false
		clear(w.opened)
		clear(w.moved)
		return true
	}
	if wd == w.file.wd {
		return w.fileEvent(mask)
	}
	d := w.dirs[wd]
	if d == nil {
		return false
	}
	if mask&(unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_UNMOUNT|unix.IN_IGNORED) != 0 || mask&unix.IN_ATTRIB != 0 && name == "" {
		if mask&unix.IN_IGNORED != 0 {
			delete(w.dirs, wd)
		}
		return true
	}
	if mask&unix.IN_ISDIR == 0 {
		w.track(filepath.Join(d.path, name), mask, cookie)
	}
	if !d.names[name] {
		return false
	}
	if mask&unix.IN_CLOSE_WRITE != 0 {
		if filepath.Join(d.path, name) == w.file.path {
			w.dirty, w.file.writing = true, false
		}
		return false
	}
	return true
}

func (w *Watcher) fileEvent(mask uint32) bool {
	switch {
	case mask&unix.IN_IGNORED != 0:
		w.file = fileWatch{wd: -1}
		return true
	case mask&unix.IN_MODIFY != 0:
		w.file.writing = true
		w.mods++
	case mask&unix.IN_CLOSE_WRITE != 0:
		w.file.writing, w.dirty = false, true
		delete(w.opened, w.file.path)
	case mask&(unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_UNMOUNT) != 0:
		return true
	}
	return false
}

// track remembers which new files beside ours have not been closed, also while
// they are renamed: one may be renamed into place by a writer not yet done.
func (w *Watcher) track(path string, mask, cookie uint32) {
	switch {
	case mask&unix.IN_CREATE != 0:
		// A symlink or a hard link is created without being written.
		var st unix.Stat_t
		if unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink == 1 && len(w.opened) < maxOpened {
			w.opened[path] = true
		}
	case mask&(unix.IN_CLOSE_WRITE|unix.IN_DELETE) != 0:
		delete(w.opened, path)
	case mask&unix.IN_MOVED_FROM != 0:
		if w.opened[path] {
			delete(w.opened, path)
			if len(w.moved) >= maxOpened {
				clear(w.moved)
			}
			w.moved[cookie] = path
		}
	case mask&unix.IN_MOVED_TO != 0:
		delete(w.opened, path)
		if _, ok := w.moved[cookie]; ok {
			delete(w.moved, cookie)
			w.opened[path] = true
		}
	}
}

// step is a directory that the path goes through, with the names in it whose
// coming or going would lead elsewhere. Without names only its own going would.
type step struct {
	dir   string
	names map[string]bool
}

// chain walks the path as the kernel would. end is the file, "" if there is none.
func (w *Watcher) chain() (steps []step, end string) {
	at := map[string]int{}
	end = resolve(w.path, func(dir, name string) {
		i, ok := at[dir]
		if !ok {
			i = len(steps)
			at[dir] = i
			steps = append(steps, step{dir, map[string]bool{}})
		}
		if name != "" {
			steps[i].names[name] = true
		}
	})
	return steps, end
}

// maxWalks bounds how often follow walks a path that changes meanwhile; each
// change after its last walk is seen as an event all the same.
const maxWalks = 10

// follow watches what the path goes through. It walks until the path hasn't
// changed between the walk and the watching. The error is that of watching the
// first directory, if none could be watched. Under w.mu, except in New.
func (w *Watcher) follow() error {
	steps, end := w.chain()
	for range maxWalks {
		if err := w.watchSteps(steps); err != nil {
			return err
		}
		w.watchFile(end)
		again, endAgain := w.chain()
		if endAgain == end && slices.EqualFunc(steps, again, func(a, b step) bool {
			return a.dir == b.dir && maps.Equal(a.names, b.names)
		}) && w.stillThere() {
			return nil
		}
		steps, end = again, endAgain
	}
	return nil
}

// stillThere says whether the watched file is the one that its path names.
func (w *Watcher) stillThere() bool {
	if w.file.path == "" {
		return true
	}
	var st unix.Stat_t
	return unix.Stat(w.file.path, &st) == nil && st.Ino == w.file.ino && uint64(st.Dev) == w.file.dev
}

func (w *Watcher) watchSteps(steps []step) error {
	var firstErr error
	keep := map[int32]bool{}
	// From the file upwards: of one that can't be watched, because it isn't
	// readable or has gone again, the directory above tells.
	lost := map[string][]string{}
	for _, s := range slices.Backward(steps) {
		names := maps.Clone(s.names)
		for _, name := range lost[s.dir] {
			names[name] = true
		}
		mask := uint32(selfMask)
		if len(names) > 0 {
			mask = entryMask
		}
		wd, err := unix.InotifyAddWatch(w.fd, s.dir, mask)
		if err != nil {
			firstErr = &os.PathError{Op: "inotify_add_watch", Path: s.dir, Err: err}
			parent, name := filepath.Dir(s.dir), filepath.Base(s.dir)
			lost[parent] = append(lost[parent], name)
			continue
		}
		keep[int32(wd)] = true
		w.dirs[int32(wd)] = &dir{path: s.dir, names: names}
	}
	for id := range w.dirs {
		if !keep[id] {
			unix.InotifyRmWatch(w.fd, uint32(id))
			delete(w.dirs, id)
		}
	}
	if len(keep) == 0 {
		return firstErr
	}
	return nil
}

// watchFile makes path, "" for none, the file at the end of the chain.
func (w *Watcher) watchFile(path string) {
	next := fileWatch{wd: -1, path: path}
	if path != "" {
		wd, err := unix.InotifyAddWatch(w.fd, path, fileMask)
		var st unix.Stat_t
		if err == nil {
			next.wd = int32(wd)
		}
		if e := unix.Stat(path, &st); e == nil {
			next.dev, next.ino = uint64(st.Dev), st.Ino
		} else {
			next.path = ""
		}
	}
	old := w.file
	if next.wd == old.wd && next.ino == old.ino && next.dev == old.dev && next.wd >= 0 {
		w.file.path = next.path
		// Its creation may be told only after we have found it.
		w.file.writing = w.file.writing || w.opened[next.path]
		return
	}
	if old.wd >= 0 && old.wd != next.wd {
		unix.InotifyRmWatch(w.fd, uint32(old.wd))
	}
	if next.path != "" {
		next.writing = w.opened[next.path]
		w.dirty = true
	}
	w.file = next
}

// resolve walks path and calls pass for each directory gone through, with the
// name in it whose coming or going would lead elsewhere ("": only the
// directory itself matters). It returns where the file is, "" if nowhere.
func resolve(path string, pass func(dir, name string)) string {
	todo := strings.Split(strings.TrimPrefix(path, "/"), "/")
	at := "/"
	for links := 0; len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at = filepath.Dir(at)
			continue
		}
		full := filepath.Join(at, name)
		fi, err := os.Lstat(full)
		if err != nil {
			pass(at, name)
			return ""
		}
		switch {
		case fi.Mode()&os.ModeSymlink != 0:
			pass(at, name)
			target, err := os.Readlink(full)
			if links++; err != nil || links > maxLinks {
				return ""
			}
			if filepath.IsAbs(target) {
				at = "/"
			}
			todo = append(strings.Split(target, "/"), todo...)
		case fi.IsDir() && !ends(todo):
			pass(at, "")
			at = full
		default:
			pass(at, name)
			if len(todo) > 0 || fi.IsDir() {
				return ""
			}
			return full
		}
	}
	return ""
}

// ends says whether these components of a path lead nowhere else.
func ends(todo []string) bool {
	return !slices.ContainsFunc(todo, func(name string) bool { return name != "" && name != "." })
}
