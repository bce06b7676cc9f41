// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A torn line that is not the file's end any more: the next begins with a line break.
func TestTornLineWithAnotherWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	out, err := openOutput(path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.close()
	other, err := openOutput(path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.close()
	write := func(o *output, text string) {
		t.Helper()
		if n, err := o.write([]byte(text)); n != len(text) || err != nil {
			t.Fatalf("wrote %d of %q: %v", n, text, err)
		}
	}
	write(out, "one\ntwo-torn")
	if !out.cut(len("two-torn")) {
		t.Error("the file's end is not cut")
	}
	write(out, "three-torn")
	write(other, "other\n")
	if out.cut(len("three-torn")) {
		t.Error("cut although another has written")
	}
	s := &sink{out: out, counts: &logCounts{}, broken: true}
	s.writeBatch([]byte("\nfour\nfive\n"))
	s.writeBatch([]byte("\nsix\n"))
	if got := read(t, path); got != "one\nthree-tornother\n\nfour\nfive\nsix\n" {
		t.Errorf("the file is %q", got)
	}
	if s.counts.lines.Load() != 3 {
		t.Errorf("%d lines counted, want 3", s.counts.lines.Load())
	}
}

// A pipe can't be cut.
func TestTornLineInAPipe(t *testing.T) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	if _, err := unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, 4096); err != nil {
		t.Fatal(err)
	}
	s := &sink{out: &output{fd: fds[1], owned: true}, counts: &logCounts{}}
	defer s.out.close()
	s.until.Store(1) // waits for nobody
	s.writeBatch([]byte("\n" + strings.Repeat("x", 6000) + "\nlost\n"))
	if s.counts.lines.Load() != 0 || s.counts.dropped.Load() != 2 {
		t.Errorf("%d lines, %d dropped, want 0 and 2", s.counts.lines.Load(), s.counts.dropped.Load())
	}
	buf := make([]byte, 8192)
	n, err := unix.Read(fds[0], buf)
	if err != nil || n == 0 || n == 6001 {
		t.Fatalf("%d bytes of a torn line: %v", n, err)
	}
	s.writeBatch([]byte("\nnext\n"))
	if n, err = unix.Read(fds[0], buf); string(buf[:max(n, 0)]) != "\nnext\n" {
		t.Errorf("then %q, %v", buf[:max(n, 0)], err)
	}
	s.writeBatch([]byte("\nlast\n"))
	if n, err = unix.Read(fds[0], buf); string(buf[:max(n, 0)]) != "last\n" {
		t.Errorf("then %q, %v", buf[:max(n, 0)], err)
	}
	unix.Close(fds[0])
	fds[0] = -1
	if _, err := s.out.write([]byte("x")); !errors.Is(err, unix.EPIPE) {
		t.Errorf("without a reader: %v, want EPIPE", err)
	}
}
