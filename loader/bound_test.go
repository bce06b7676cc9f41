// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// withSmallRig runs f on sockets with small buffers, under these rules.
func withSmallRig(t *testing.T, o rules, f func(r *rig)) {
	t.Helper()
	inNamespace(t, func(t *testing.T) {
		s := must1(t, func() (*Splice, error) { return newSplice(SpliceOptions{MaxFlows: 4}, o) })
		defer s.Close()
		_, err := runStep(context.Background(), s, step{buf: smallBuf, run: func(r *rig) (string, error) {
			r.deadline = time.Now().Add(20 * time.Second)
			f(r)
			return "", nil
		}})
		must(t, 0, err)
	})
}

// stick has redirected bytes wait in the queue of the back socket: the server
// doesn't read, and they don't fit into the sockets' buffers.
func (r *rig) stick(t *testing.T) {
	must(t, 0, r.add())
	must(t, 0, r.send(r.client, pattern(512<<10)))
	if h := r.direction(0); h.Redirected() != 512<<10 || h.Passed() != 0 {
		t.Fatalf("%d bytes redirected, %d passed", h.Redirected(), h.Passed())
	}
}

// A buffer takes a kilobyte of the kernel's memory even for one byte: not only the
// bytes that wait in a target's queue are bounded.
func TestSmallBuffersAreBounded(t *testing.T) {
	needSplice(t)
	const sends, most = 4096, 1024 // MOST_QUEUED in bpf/splice_maps.h
	for _, c := range []struct {
		name  string
		rules rules
		bound bool
	}{{"bounded", rules{}, true}, {"without the rule", rules{noQueued: true}, false}} {
		t.Run(c.name, func(t *testing.T) {
			withSmallRig(t, c.rules, func(r *rig) {
				must(t, 0, unix.SetsockoptInt(r.client, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
				r.stick(t)
				h := r.direction(0)
				before := h.Redirected()
				for range sends {
					must(t, 0, r.send(r.client, []byte{1}))
				}
				moved := h.Redirected() - before
				t.Logf("%d of %d one-byte buffers redirected, %d passed", moved, sends, h.Passed())
				if c.bound && (moved > most || h.Passed() == 0) || !c.bound && h.Passed() > 0 {
					t.Errorf("%d redirected, %d passed", moved, h.Passed())
				}
			})
		})
	}
}

// What a socket passes waits uncharged while its own queue is stuck. Userspace sees
// to that; if it doesn't, the session is lost rather than the kernel's memory.
func TestUnreadBytesAreBounded(t *testing.T) {
	needSplice(t)
	const sends, most = 128 << 20, 64 << 20 // MOST_UNREAD in bpf/splice_maps.h
	for _, c := range []struct {
		name  string
		rules rules
		bound bool
	}{{"bounded", rules{}, true}, {"without the rule", rules{noUnread: true}, false}} {
		t.Run(c.name, func(t *testing.T) {
			withSmallRig(t, c.rules, func(r *rig) {
				r.stick(t)
				h := r.direction(1)
				h.SetHold(true)
				for b, sent := pattern(64<<10), 0; sent < sends; {
					n, err := unix.Write(r.server, b)
					if errors.Is(err, unix.EAGAIN) && r.ready(r.server, unix.POLLOUT, 100*time.Millisecond) == 0 {
						break
					}
					sent += max(n, 0)
				}
				t.Logf("%d bytes passed and unread", h.Passed())
				if slack := uint64(1 << 20); c.bound && (!h.Broken() || h.Passed() > most+slack) || !c.bound && (h.Broken() || h.Passed() < sends-slack) {
					t.Errorf("%d bytes passed, broken %t", h.Passed(), h.Broken())
				}
			})
		})
	}
}
