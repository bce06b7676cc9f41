// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"bytes"
	"strings"
	"sync"
)

// tail is a writer that keeps the last of what is written to it: a guest in a
// loop may fill its log for as long as the timeout allows.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailKeeps = 256 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if over := len(t.buf) - tailKeeps; over > tailKeeps {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(b), nil
}

// text is what was kept, with the serial line's returns taken out.
func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(bytes.ReplaceAll(t.buf, []byte("\r"), nil)))
}

// lines are the last n lines.
func (t *tail) lines(n int) string {
	all := strings.Split(t.text(), "\n")
	return strings.Join(all[max(0, len(all)-n):], "\n")
}
