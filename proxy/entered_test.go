// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net"
	"testing"
	"time"
	"unsafe"

	"sluice/bpf"
	"sluice/loader"
)

// Two looks are never a negative distance apart, whatever the second one missed.
func TestSince(t *testing.T) {
	for _, c := range []struct{ count, base, want uint64 }{
		{0, 0, 0},
		{5, 5, 0},
		{7, 5, 2},
		{4, 5, 0},
		{0, 1 << 40, 0},
		{1 << 40, 0, 1 << 40},
		{1, 1<<64 - 1, 2}, // a base of give or take a constant
		{1<<64 - 1, 1, 0},
	} {
		if got := since(c.count, c.base); got != c.want {
			t.Errorf("since(%d, %d) = %d, want %d", c.count, c.base, got, c.want)
		}
	}
}

// A look that misses something takes back nothing that an earlier one saw, and
// what we wrote ourselves is not taken for the kernel's.
func TestProgress(t *testing.T) {
	d := direction{base: 100}
	for _, c := range []struct {
		entered         uint64
		more            bool
		written         uint64
		redirected, own uint64
		sent            uint64
	}{
		{100, false, 0, 50, 0, 0},
		{90, false, 0, 50, 0, 0}, // missed 10
		{130, true, 30, 50, 0, 30},
		{110, false, 30, 50, 0, 30}, // missed 20
		{130, false, 30, 50, 40, 0}, // ours not all there yet
		{180, true, 80, 50, 20, 50}, // more than was redirected
		{160, false, 80, 70, 20, 60},
	} {
		more := d.progress(c.entered)
		if sent := d.sent(c.redirected, c.own); more != c.more || d.written != c.written || sent != c.sent {
			t.Errorf("entered %d: more %t, written %d, sent %d; want %+v", c.entered, more, d.written, sent, c)
		}
	}
}

// While a reader takes what lies in a socket, and acknowledges it, the bytes
// that have entered are always as many; a single look may miss some of them,
// and must never see more.
func TestExactly(t *testing.T) {
	start := make(chan struct{})
	addr := serve(t, func(c net.Conn) {
		<-start
		b := make([]byte, 512)
		for {
			if _, err := c.Read(b); err != nil {
				return
			}
		}
	})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	fill := make([]byte, 64<<10)
	c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	for {
		if _, err := c.Write(fill); err != nil {
			break // full
		}
	}
	var want uint64
	looks, missed := 0, 0
	err = raw.Control(func(fd uintptr) {
		fd32 := int32(fd)
		at, _ := exactly(fd32)
		want = at.entered
		// A session of which the kernel says that it redirected a byte: it never
		// enters, so the direction is never drained.
		redirected := (*loader.Direction)(unsafe.Pointer(&bpf.SpliceDirection{Redirected: 1}))
		s := &pair{loop: &loop{}}
		s.cli, s.up = end{s: s, fd: -1}, end{s: s, fd: fd32}
		m := &splicer{s: s}
		d := &m.dir[0]
		d.src, d.dst, d.shared, d.base = &s.cli, &s.up, redirected, want
		close(start)
		for outq(fd32) > 0 {
			if m.drained(d) {
				t.Errorf("a byte that was never written has entered: %d of 1", d.written)
				return
			}
			if got, ok := exactly(fd32); ok && got.entered != want {
				t.Errorf("%d bytes have entered, not %d", got.entered, want)
				return
			}
			got, _ := entered(fd32)
			if got > want {
				t.Errorf("a look sees %d bytes of %d", got, want)
				return
			}
			if looks++; got < want {
				missed++
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d looks at %d bytes, %d of them missed some", looks, want, missed)
	if _, ok := exactly(-1); ok {
		t.Error("no socket, and yet a number")
	}
}
