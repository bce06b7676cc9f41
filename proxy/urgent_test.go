// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/accesslog"
	"sluice/config"
)

// sendUrgent writes b as urgent data: its last byte is the mark.
func sendUrgent(c syscall.Conn, b []byte) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Write(func(fd uintptr) bool {
		sent = unix.Sendto(int(fd), b, unix.MSG_OOB, nil)
		return sent != unix.EAGAIN
	})
	if sent != nil {
		return sent
	}
	return err
}

// sendWithMarks sends size bytes of s, those at marks as urgent ones, waits
// pause before and behind each, and half-closes.
func sendWithMarks(c net.Conn, s *stream, size int, marks []int, pause time.Duration) error {
	at := 0
	plain := func(upTo int) error {
		_, err := io.CopyN(c, s, int64(upTo-at))
		at = upTo
		return err
	}
	for _, m := range marks {
		if err := plain(m); err != nil {
			return err
		}
		time.Sleep(pause)
		var b [1]byte
		s.Read(b[:])
		if err := sendUrgent(c.(syscall.Conn), b[:]); err != nil {
			return err
		}
		at++
		time.Sleep(pause)
	}
	if err := plain(size); err != nil {
		return err
	}
	return c.(interface{ CloseWrite() error }).CloseWrite()
}

// urgentPlan is a stream with urgent bytes at its marks, and a pause around each.
type urgentPlan struct {
	name  string
	size  int
	marks []int
	pause time.Duration
}

func urgentPlans() []urgentPlan {
	const most = 3_000_000
	return []urgentPlan{
		{"alone", 1, []int{0}, 0},
		{"first", 1000, []int{0}, 0},
		{"first, then a pause", 1000, []int{0}, 20 * time.Millisecond},
		{"last", 1000, []int{999}, 0},
		{"last, after a pause", 1000, []int{999}, 20 * time.Millisecond},
		{"among small ones", 10_000, []int{100, 101, 5000, 9000}, 5 * time.Millisecond},
		{"early in bulk", most, []int{100_000}, 0},
		{"amid bulk", most, []int{600_000}, 0},
		{"amid bulk, paused", most, []int{600_000, 1_200_000}, 20 * time.Millisecond},
		{"several in bulk", most, []int{1, 200_000, 500_001, 500_003, 1_700_000, 2_999_998}, 0},
		{"last of bulk", most, []int{most - 1}, 0},
	}
}

// Urgent bytes are delivered in their place, and all that comes after them,
// whenever they come and whichever way.
func TestUrgentBytes(t *testing.T) {
	datapaths(t, func(t *testing.T, path string) {
		t.Run("from the client", func(t *testing.T) { urgentFromClient(t, path) })
		t.Run("from the backend", func(t *testing.T) { urgentFromBackend(t, path) })
	})
}

func urgentFromClient(t *testing.T, path string) {
	type outcome struct {
		n   uint32
		err error
	}
	got := make(chan outcome, 1)
	r := newRig(t, path, []string{serve(t, func(c net.Conn) {
		n, err := readAll(c, newStream(3, 'u'), 0)
		got <- outcome{n, err}
		c.Write([]byte("answer"))
	})}, nil)
	for i, p := range urgentPlans() {
		t.Run(p.name, func(t *testing.T) {
			c := r.dial()
			defer c.Close()
			c.SetDeadline(time.Now().Add(20 * time.Second))
			if err := sendWithMarks(c, newStream(3, 'u'), p.size, p.marks, p.pause); err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(c); err != nil || string(b) != "answer" {
				t.Fatalf("the answer: %q, %v; sessions:\n%s", b, err, r.left())
			}
			if o := <-got; o.err != nil || int(o.n) != p.size {
				t.Errorf("%d bytes of %d, %v", o.n, p.size, o.err)
			}
			expect(t, r.ended(i + 1)[i], 200, accesslog.ClientClosed, uint64(p.size), 6)
		})
	}
}

func urgentFromBackend(t *testing.T, path string) {
	next := make(chan urgentPlan, 1)
	r := newRig(t, path, []string{serve(t, func(c net.Conn) {
		p := <-next
		if err := sendWithMarks(c, newStream(3, 'd'), p.size, p.marks, p.pause); err != nil {
			t.Error(err)
		}
		io.Copy(io.Discard, c)
	})}, nil)
	for i, p := range urgentPlans() {
		t.Run(p.name, func(t *testing.T) {
			next <- p
			c := r.dial()
			defer c.Close()
			c.SetDeadline(time.Now().Add(20 * time.Second))
			if n, err := readAll(c, newStream(3, 'd'), 0); err != nil || int(n) != p.size {
				t.Fatalf("%d bytes of %d, %v; sessions:\n%s", n, p.size, err, r.left())
			}
			c.Close()
			expect(t, r.ended(i + 1)[i], 200, accesslog.BackendClosed, 0, uint64(p.size))
		})
	}
}

// A unix socket has urgent bytes too, and ends a read behind descriptors that
// came with the bytes. Both are bytes like others here; descriptors are dropped.
func TestUnixReadsThatStop(t *testing.T) {
	dir := t.TempDir()
	const size = 40_000
	r := newRig(t, "relay", []string{serveOn(t, "unix", filepath.Join(dir, "b"), func(c net.Conn) {
		n, err := readAll(c, newStream(5, 'u'), 0)
		fmt.Fprintf(c, "%d %v", n, err)
	})}, nil)
	front, err := r.engine.Bind(config.Address{Path: filepath.Join(dir, "f")}, 16, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	front.Serve(r.settings)
	defer func() { front.Close(time.Minute); <-front.Done() }()
	for _, kind := range []string{"urgent", "descriptors"} {
		t.Run(kind, func(t *testing.T) {
			// All of it lies in the socket before anybody reads.
			gate := make(chan struct{})
			for _, l := range r.engine.loops {
				l.post(func() { <-gate })
			}
			conn, err := net.Dial("unix", filepath.Join(dir, "f"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			c := conn.(*net.UnixConn)
			c.SetDeadline(time.Now().Add(10 * time.Second))
			s := newStream(5, 'u')
			b := make([]byte, size)
			s.Read(b)
			for i, piece := range slices.Collect(slices.Chunk(b, 5_000)) {
				switch {
				case i%2 == 0:
					_, err = c.Write(piece)
				case kind == "urgent":
					err = sendUrgent(c, piece)
				default:
					_, _, err = c.WriteMsgUnix(piece, unix.UnixRights(0, 1), nil)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			close(gate)
			// No end of stream yet, which would have the rest read.
			time.Sleep(50 * time.Millisecond)
			ses := r.session()
			ses.loop.call(func() {
				if ses.up.out != size {
					t.Errorf("%d bytes of %d passed on", ses.up.out, size)
				}
			})
			c.CloseWrite()
			want := fmt.Sprintf("%d <nil>", size)
			if got, err := io.ReadAll(c); string(got) != want {
				t.Errorf("%q, %v, want %q", got, err, want)
			}
		})
	}
}
