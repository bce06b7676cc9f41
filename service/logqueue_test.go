// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// stuck is a log's reader that takes nothing until it is let.
type stuck struct {
	syncBuffer
	let chan struct{}
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.let
	return s.syncBuffer.Write(p)
}

// TestLogReaderStuck: nobody waits for whoever reads the own log: sessions are
// served, edits taken and signals obeyed though not a line of it is read.
func TestLogReaderStuck(t *testing.T) {
	a, front := backend(t, "a"), freeAddr(t)
	out := &stuck{let: make(chan struct{})}
	r := &rig{t: t, dir: t.TempDir(), reloads: make(chan error, 100)}
	r.file = filepath.Join(r.dir, "backends.yaml")
	dead := "pools:\n" + poolYAML("p", "", "127.0.0.1:1", a) + "log: {level: debug}\nlisteners:\n" + listenerYAML("l", front, "p")
	r.edit(dead)
	signals := NewSignals()
	s := New(Options{ConfigFile: r.file, Unprivileged: true, LogWriter: zerolog.MultiLevelWriter(out), AfterReload: func(err error) { r.reloads <- err }})
	ended := make(chan error, 1)
	go func() { ended <- s.Run(context.Background(), signals) }()
	select {
	case <-s.Ready():
	case err := <-ended:
		t.Fatalf("start: %v", err)
	case <-time.After(10 * time.Second):
		t.Fatal("the start waits for the log")
	}
	if got := picks(t, front, 4); got != "a a a a" {
		t.Errorf("got %s", got)
	}
	r.mustReload(dead + "# edited\n")
	signals.Send(syscall.SIGTERM)
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("SIGTERM waits for the log")
	}
	close(out.let)
	eventually(t, "the last lines", func() bool {
		return strings.Contains(out.String(), "stopping") && strings.Contains(out.String(), "connect failed")
	})
	_ = os.Remove(r.file)
}

// TestLogQueueIsBounded: what is too much is dropped, counted, and told.
func TestLogQueueIsBounded(t *testing.T) {
	out := &stuck{let: make(chan struct{})}
	q := newLogQueue(zerolog.MultiLevelWriter(out))
	line := strings.Repeat("x", 1023) + "\n"
	const lines = 3000
	for range lines {
		if n, err := q.Write([]byte(line)); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
	}
	q.mu.Lock()
	size := q.size
	q.mu.Unlock()
	if size > maxQueued {
		t.Errorf("%d bytes wait", size)
	}
	q.flush(time.Millisecond) // doesn't wait for ever
	close(out.let)
	q.flush(time.Minute)
	told := 0 // in one line or more: some may have been dropped before the first was written
	for _, m := range regexp.MustCompile(`"lines":(\d+)`).FindAllStringSubmatch(out.String(), -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		told += n
	}
	if got := strings.Count(out.String(), line); told == 0 || got+told != lines {
		t.Errorf("%d lines written, %d told as dropped, of %d", got, told, lines)
	}
}
