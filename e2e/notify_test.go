// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// portCounter hands out each port once a test run.
var portCounter atomic.Uint32

// notices is the other end of sd_notify.
type notices struct {
	path  string
	conn  *net.UnixConn
	ready chan struct{} // closed at the first READY=1

	mu   sync.Mutex
	seen []string
	once sync.Once
}

func listenNotices(t testing.TB, dir string) *notices {
	t.Helper()
	n := &notices{path: filepath.Join(dir, "notify"), ready: make(chan struct{})}
	os.Remove(n.path)
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: n.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(n.path, 0o777); err != nil {
		t.Fatal(err)
	}
	n.conn = c
	go n.read()
	return n
}

func (n *notices) read() {
	b := make([]byte, 4096)
	for {
		k, err := n.conn.Read(b)
		if err != nil {
			return
		}
		for line := range strings.Lines(string(b[:k])) {
			line = strings.TrimSpace(line)
			n.mu.Lock()
			n.seen = append(n.seen, line)
			n.mu.Unlock()
			if line == "READY=1" {
				n.once.Do(func() { close(n.ready) })
			}
		}
	}
}

func (n *notices) has(word string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.seen {
		if strings.HasPrefix(s, word) {
			return true
		}
	}
	return false
}

func (n *notices) close() { n.conn.Close() }
