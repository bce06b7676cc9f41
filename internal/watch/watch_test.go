// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// follower reads whenever it is told, as the service does.
type follower struct {
	w    *Watcher
	mu   sync.Mutex
	seen []string
	stop chan struct{}
	done chan struct{}
}

func follow(t *testing.T, path string) *follower {
	t.Helper()
	return followLooking(t, path, lookEvery)
}

// followLooking looks for what nothing tells so often.
func followLooking(t *testing.T, path string, look time.Duration) *follower {
	t.Helper()
	w, err := newWatcher(path, look)
	if err != nil {
		t.Fatal(err)
	}
	f := &follower{w: w, stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(f.done)
		for {
			data, err := w.Read()
			if err == nil {
				f.mu.Lock()
				f.seen = append(f.seen, string(data))
				f.mu.Unlock()
			}
			select {
			case <-w.Changed():
			case <-f.stop:
				return
			}
		}
	}()
	t.Cleanup(func() {
		close(f.stop)
		<-f.done
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *follower) last() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.seen) == 0 {
		return ""
	}
	return f.seen[len(f.seen)-1]
}

// wants waits for the content; a second is what is promised.
func (f *follower) wants(t *testing.T, want string) {
	t.Helper()
	f.wantsWithin(t, want, time.Second)
}

func (f *follower) wantsWithin(t *testing.T, want string, limit time.Duration) {
	t.Helper()
	for end := time.Now().Add(limit); f.last() != want; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("read %q %s after the edit, want %q", f.last(), limit, want)
		}
	}
}

func (f *follower) never(t *testing.T, bad ...string) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.seen {
		for _, b := range bad {
			if s == b {
				t.Errorf("read %q, which was never finished", s)
			}
		}
	}
}

func write(t *testing.T, path, s string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(s), 0o644); err != nil {
		t.Fatal(err)
	}
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// slowly writes pieces in place, each of which is a plausible file.
func slowly(t *testing.T, path string, flags int, pieces ...string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|flags, 0o644)
	do(t, err)
	for _, p := range pieces {
		_, err := f.WriteString(p)
		do(t, err)
		time.Sleep(60 * time.Millisecond)
	}
	do(t, f.Close())
}

func TestEditStyles(t *testing.T) {
	tests := []struct {
		name  string
		edit  func(t *testing.T, path string)
		never []string
	}{
		{"in place", func(t *testing.T, path string) { write(t, path, "new") }, []string{""}},
		{"in place, slowly", func(t *testing.T, path string) {
			slowly(t, path, os.O_TRUNC, "n", "e", "w")
		}, []string{"", "n", "ne"}},
		{"renamed into place", func(t *testing.T, path string) {
			write(t, path+".tmp", "new")
			do(t, os.Rename(path+".tmp", path))
		}, nil},
		{"as vim does", func(t *testing.T, path string) {
			do(t, os.Rename(path, path+"~"))
			slowly(t, path, os.O_CREATE|os.O_EXCL, "n", "ew")
			do(t, os.Remove(path+"~"))
		}, []string{"", "n"}},
		{"deleted and created", func(t *testing.T, path string) {
			do(t, os.Remove(path))
			time.Sleep(50 * time.Millisecond)
			slowly(t, path, os.O_CREATE|os.O_EXCL, "n", "ew")
		}, []string{"", "n"}},
		{"renamed before it is closed", func(t *testing.T, path string) {
			f, err := os.Create(path + ".tmp")
			do(t, err)
			f.WriteString("n")
			time.Sleep(20 * time.Millisecond)
			do(t, os.Rename(path+".tmp", path))
			time.Sleep(60 * time.Millisecond)
			f.WriteString("ew")
			do(t, f.Close())
		}, []string{"", "n"}},
		{"directory replaced", func(t *testing.T, path string) {
			d := filepath.Dir(path)
			do(t, os.Mkdir(d+".new", 0o755))
			write(t, filepath.Join(d+".new", filepath.Base(path)), "new")
			do(t, os.Rename(d, d+".old"))
			do(t, os.Rename(d+".new", d))
		}, nil},
		{"directory deleted and created", func(t *testing.T, path string) {
			d := filepath.Dir(path)
			do(t, os.RemoveAll(d))
			time.Sleep(30 * time.Millisecond)
			do(t, os.Mkdir(d, 0o755))
			write(t, path, "new")
		}, nil},
		{"hard link into place", func(t *testing.T, path string) {
			write(t, path+".tmp", "new")
			do(t, os.Remove(path))
			do(t, os.Link(path+".tmp", path))
		}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := filepath.Join(t.TempDir(), "etc")
			do(t, os.Mkdir(d, 0o755))
			path := filepath.Join(d, "backends.yaml")
			write(t, path, "old")
			f := follow(t, path)
			f.wants(t, "old")
			for range 2 { // the watch is as good after an edit as before
				tt.edit(t, path)
				f.wants(t, "new")
				f.never(t, tt.never...)
				for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
					if f.last() != "new" {
						t.Fatalf("read %q after the edit", f.last())
					}
				}
				os.RemoveAll(d + ".old")
				os.Remove(path + ".tmp")
				write(t, path, "old")
				f.wants(t, "old")
			}
		})
	}
}

// TestConfigMap swaps the symlink in the middle of the chain, as a kubelet does.
func TestConfigMap(t *testing.T) {
	d := t.TempDir()
	version := func(i int) string {
		v := filepath.Join(d, fmt.Sprintf("..v%d", i))
		do(t, os.Mkdir(v, 0o755))
		write(t, filepath.Join(v, "backends.yaml"), fmt.Sprint("version ", i))
		return filepath.Base(v)
	}
	do(t, os.Symlink(version(0), filepath.Join(d, "..data")))
	do(t, os.Symlink("..data/backends.yaml", filepath.Join(d, "backends.yaml")))
	outer := filepath.Join(t.TempDir(), "link.yaml")
	do(t, os.Symlink(filepath.Join(d, "backends.yaml"), outer))
	f := follow(t, outer)
	f.wants(t, "version 0")
	for i := 1; i < 6; i++ {
		tmp := filepath.Join(d, "..data_tmp")
		do(t, os.Symlink(version(i), tmp))
		do(t, os.Rename(tmp, filepath.Join(d, "..data")))
		do(t, os.RemoveAll(filepath.Join(d, fmt.Sprintf("..v%d", i-1))))
		f.wants(t, fmt.Sprint("version ", i))
	}
	other := filepath.Join(t.TempDir(), "other.yaml")
	write(t, other, "elsewhere")
	do(t, os.Remove(outer))
	do(t, os.Symlink(other, outer))
	f.wants(t, "elsewhere")
	write(t, other, "in place")
	f.wants(t, "in place")
}

func TestMissingAtFirst(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b", "backends.yaml")
	f := follow(t, path)
	if _, err := f.w.Read(); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got %v", err)
	}
	do(t, os.Mkdir(filepath.Dir(filepath.Dir(path)), 0o755))
	time.Sleep(20 * time.Millisecond)
	do(t, os.Mkdir(filepath.Dir(path), 0o755))
	write(t, path, "here")
	f.wants(t, "here")
}

// TestStorm edits steadily, both ways: something new is read every second
// meanwhile, nothing torn, and the last state wins.
func TestStorm(t *testing.T) {
	for _, inPlace := range []bool{false, true} {
		t.Run(fmt.Sprint("in place ", inPlace), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "backends.yaml")
			write(t, path, "start.")
			f := follow(t, path)
			for i := range 1000 {
				s := fmt.Sprintf("edit %d.", i)
				if inPlace {
					file, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
					do(t, err)
					file.WriteString(s[:4])
					file.WriteString(s[4:])
					do(t, file.Close())
				} else {
					write(t, path+".tmp", s)
					do(t, os.Rename(path+".tmp", path))
				}
				time.Sleep(time.Millisecond)
			}
			f.wants(t, "edit 999.")
			f.mu.Lock()
			defer f.mu.Unlock()
			if len(f.seen) < 3 {
				t.Errorf("read %d times during 1000 edits, want it to keep up", len(f.seen))
			}
			for _, s := range f.seen {
				if s == "" || s[len(s)-1] != '.' {
					t.Errorf("read %q, which was never finished", s)
				}
			}
		})
	}
}

// TestWriting: a reader that comes in the middle of a write is told to wait,
// and is woken by the close.
func TestWriting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "backends.yaml")
	write(t, path, "old")
	w, err := New(path)
	do(t, err)
	defer w.Close()
	if b, err := w.Read(); err != nil || string(b) != "old" {
		t.Fatal(string(b), err)
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	do(t, err)
	file.WriteString("n")
	if _, err := w.Read(); !errors.Is(err, ErrWriting) {
		t.Fatalf("got %v in the middle of a write", err)
	}
	select {
	case <-w.Changed():
	default:
	}
	file.WriteString("ew")
	do(t, file.Close())
	select {
	case <-w.Changed():
	case <-time.After(time.Second):
		t.Fatal("the close wasn't reported within a second")
	}
	if b, err := w.Read(); err != nil || string(b) != "new" {
		t.Fatal(string(b), err)
	}
	if w.Pending() {
		t.Error("something is said to be pending after the last read")
	}
}

// TestQuiet: others' traffic in the directories above wakes nobody.
func TestQuiet(t *testing.T) {
	top := t.TempDir()
	d := filepath.Join(top, "etc")
	do(t, os.Mkdir(d, 0o755))
	path := filepath.Join(d, "backends.yaml")
	write(t, path, "old")
	f := follow(t, path)
	f.wants(t, "old")
	time.Sleep(20 * time.Millisecond)
	f.mu.Lock()
	n := len(f.seen)
	f.mu.Unlock()
	for i := range 20 {
		write(t, filepath.Join(top, fmt.Sprint(i)), "x")
		write(t, filepath.Join(d, fmt.Sprint(i)), "x")
	}
	time.Sleep(50 * time.Millisecond)
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.seen) != n {
		t.Errorf("read %d times more for files that aren't ours", len(f.seen)-n)
	}
}
