// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"sluice/config"
)

func openLog(t testing.TB, path, format string) *Log {
	t.Helper()
	l, err := Open(&config.AccessLog{Path: path, Format: format}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func record(id uint64) *Record {
	s := session(ip("127.0.0.1:40000"), 200, 9, 5, time.Millisecond, tried("127.0.0.1:19001", 5, 9))
	s.ID = id
	return s
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// eventually waits for what has no bound of its own.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	if err := os.WriteFile(path, []byte("old\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := openLog(t, path, "$connection")
	l.Write(record(1))
	l.Write(record(2))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path); got != "old\n1\n2\n" {
		t.Errorf("the file is %q", got)
	}
	l.Write(record(3))
	if l.Lines() != 2 || l.Dropped() != 1 {
		t.Errorf("%d lines, %d dropped, want 2 and 1", l.Lines(), l.Dropped())
	}
}

func TestMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	openLog(t, path, "json")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got&^0o640 != 0 || got&0o600 != 0o600 {
		t.Errorf("mode %v, want 0640 less the umask", got)
	}
}

func TestIsPrompt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	l := openLog(t, path, "$connection")
	best := time.Hour
	for i := range uint64(5) {
		start := time.Now()
		l.Write(record(i))
		eventually(t, "a line in the file", func() bool { return l.Lines() == i+1 })
		best = min(best, time.Since(start))
	}
	if best > 200*time.Millisecond {
		t.Errorf("a line took %v at best, want under 200 ms", best)
	}
}

func TestNeedsAFile(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "no", "file")} {
		_, err := Open(&config.AccessLog{Path: path, Format: "json"}, zerolog.Nop())
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v, want one that names it", path, err)
		}
	}
	if _, err := Open(&config.AccessLog{Path: filepath.Join(dir, "x"), Format: "$x"}, zerolog.Nop()); err == nil {
		t.Error("a bad format is taken")
	}
	if _, err := os.Stat(filepath.Join(dir, "x")); err == nil {
		t.Error("a file is made although the format is bad")
	}
}

func TestNone(t *testing.T) {
	l, err := Open(nil, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	l.Write(record(1))
	if err := l.Reopen(); err != nil {
		t.Error(err)
	}
	path := filepath.Join(t.TempDir(), "access.log")
	change(t, l, &config.AccessLog{Path: path, Format: "$connection"})
	l.Write(record(2))
	change(t, l, nil)
	l.Write(record(3))
	l.Close()
	l.Write(record(4))
	if got := read(t, path); got != "2\n" || l.Lines() != 1 || l.Dropped() != 0 {
		t.Errorf("the file is %q, %d lines, %d dropped", got, l.Lines(), l.Dropped())
	}
}

func change(t testing.TB, l *Log, cfg *config.AccessLog) {
	t.Helper()
	c, err := l.Prepare(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.Commit()
}

func TestChange(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	l := openLog(t, a, "a$connection")
	l.Write(record(1))
	if _, err := l.Prepare(&config.AccessLog{Path: filepath.Join(dir, "no", "b"), Format: "json"}); err == nil {
		t.Error("a file that can't be opened is taken")
	}
	discarded, err := l.Prepare(&config.AccessLog{Path: b, Format: "json"})
	if err != nil {
		t.Fatal(err)
	}
	discarded.Discard()
	l.Write(record(2))
	change(t, l, &config.AccessLog{Path: a, Format: "A$connection"})
	l.Write(record(3))
	change(t, l, &config.AccessLog{Path: b, Format: "b$connection"})
	l.Write(record(4))
	if err := l.Reopen(); err != nil {
		t.Error(err)
	}
	l.Write(record(5))
	l.Close()
	if got := read(t, a) + read(t, b); got != "a1\na2\nA3\nb4\nb5\n" {
		t.Errorf("the files are %q", got)
	}
}

func TestReopenFailureKeepsTheFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l := openLog(t, filepath.Join(dir, "log"), "$connection")
	l.Write(record(1))
	if err := os.Rename(dir, dir+"2"); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); err == nil {
		t.Error("no error although the directory is gone")
	}
	l.Write(record(2))
	l.Close()
	if got := read(t, filepath.Join(dir+"2", "log")); got != "1\n2\n" {
		t.Errorf("the old file is %q", got)
	}
}

// Rotation under load: no line is lost or twice there, and no time falls, over
// the files in the order of the rotations.
func TestReopenRace(t *testing.T) {
	const writers, each, rotations = 8, 1500, 25
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	l := openLog(t, path, "$connection $msec")
	var wg sync.WaitGroup
	var written atomic.Uint64
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				l.Write(record(uint64(w*each + i)))
				if written.Add(1); i%50 == 0 {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	names := []string{}
	for i := range rotations {
		time.Sleep(2 * time.Millisecond)
		if i%5 != 4 { // sometimes without a rename: the same file again
			name := filepath.Join(dir, fmt.Sprint("log.", i))
			if err := os.Rename(path, name); err != nil {
				t.Fatal(err)
			}
			names = append(names, name)
		}
		if err := l.Reopen(); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	l.Close()
	var all strings.Builder
	for _, name := range append(names, path) {
		all.WriteString(read(t, name))
	}
	seen, last := make(map[string]bool), 0.0
	for text := range strings.Lines(all.String()) {
		id, msec, _ := strings.Cut(strings.TrimSuffix(text, "\n"), " ")
		now, err := strconv.ParseFloat(msec, 64)
		if err != nil || seen[id] || now < last {
			t.Fatalf("line %q: twice %v, after %.3f, %v", text, seen[id], last, err)
		}
		seen[id], last = true, now
	}
	if len(seen) != writers*each || l.Lines() != writers*each || l.Dropped() != 0 {
		t.Errorf("%d of %d lines; counted %d, dropped %d", len(seen), writers*each, l.Lines(), l.Dropped())
	}
}

// Nobody reads: writing goes on, memory is bounded, closing takes 5 s at most.
func TestFIFOWithoutReader(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	l := openLog(t, path, config.FormatProxy)
	const total = 60_000
	start := time.Now()
	for i := range uint64(total) {
		l.Write(record(i))
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("%d lines took %v", total, took)
	}
	if l.Dropped() == 0 {
		t.Errorf("nothing dropped of more than is kept")
	}
	reader, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	start = time.Now()
	l.Close()
	if took := time.Since(start); took > 6*time.Second {
		t.Errorf("closing took %v, want 5 s at most", took)
	}
	if l.Lines()+l.Dropped() != total {
		t.Errorf("%d lines and %d dropped are not %d", l.Lines(), l.Dropped(), total)
	}
	rest, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(rest, []byte("\n")); uint64(n) != l.Lines() || !bytes.HasSuffix(rest, []byte("\n")) {
		t.Errorf("%d lines in the pipe, %d counted; the end is %q", n, l.Lines(), rest[max(0, len(rest)-20):])
	}
}

// A reader that comes late and reads slowly gets every line.
func TestFIFOSlowReader(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	l := openLog(t, path, "$connection")
	const total = 30_000 // more than the pipe takes
	for i := range uint64(total) {
		l.Write(record(i))
	}
	reader, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	done := make(chan string)
	go func() {
		b, _ := io.ReadAll(reader)
		done <- string(b)
	}()
	eventually(t, "all lines written", func() bool { return l.Lines() == total })
	l.Close()
	want := 0
	for text := range strings.Lines(<-done) {
		if text != fmt.Sprintln(want) {
			t.Fatalf("line %q, want %d", text, want)
		}
		want++
	}
	if want != total || l.Dropped() != 0 {
		t.Errorf("%d lines of %d, %d dropped", want, total, l.Dropped())
	}
}

func TestDevFull(t *testing.T) {
	l := openLog(t, "/dev/full", "$connection")
	for i := range uint64(100) {
		l.Write(record(i))
	}
	eventually(t, "100 lines dropped", func() bool { return l.Dropped() == 100 })
	if l.Lines() != 0 {
		t.Errorf("%d lines", l.Lines())
	}
}

func BenchmarkWrite(b *testing.B) {
	l := openLog(b, filepath.Join(b.TempDir(), "log"), config.FormatProxy)
	s := record(1)
	b.ReportAllocs()
	for b.Loop() {
		l.Write(s)
	}
	b.ReportMetric(float64(l.Dropped())/float64(b.N), "dropped/op")
}
