// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"sluice/accesslog"
	"sluice/bpf"
	"sluice/stats"
)

// wakes is how often the loops have been woken, the look itself aside.
func (r *rig) wakes() uint64 {
	var n uint64
	for _, l := range r.engine.loops {
		l.call(func() { n += l.wakes })
	}
	return n
}

// A message that the kernel moves wakes nobody in userspace (rule 8).
func TestSplicedMessagesWakeNobody(t *testing.T) {
	needSplice(t)
	r := newRig(t, "splice", []string{serve(t, echo)}, nil)
	c := r.dial()
	defer c.Close()
	warm(t, c)
	before, start := r.wakes(), time.Now()
	for range 50 {
		warm(t, c)
	}
	// Looking costs a wake a loop, and the sweep one a second.
	allowed := uint64(len(r.engine.loops)) * (2 + uint64(time.Since(start)/time.Second))
	if n := r.wakes() - before; n > allowed+4 {
		t.Errorf("%d wake-ups for 2000 spliced messages each way", n)
	}
}

// Bytes of a spliced session are in the counters while it lives.
func TestFlushCountsSplicedBytes(t *testing.T) {
	datapaths(t, func(t *testing.T, path string) {
		r := newRig(t, path, []string{serve(t, echo)}, nil)
		c := r.dial()
		defer c.Close()
		warm(t, c)
		warm(t, c)
		// The last message counts once it is acknowledged, where nobody takes it.
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			r.engine.Flush()
			if r.settings.Counters.Sent.Load() == 2*warmBytes || time.Now().After(end) {
				break
			}
		}
		if got := r.settings.Counters.Received.Load(); got != 2*warmBytes {
			t.Errorf("received %d", got)
		}
		if got := r.settings.Counters.Sent.Load(); got != 2*warmBytes {
			t.Errorf("sent %d", got)
		}
		b := r.pool.Backends()[0].Snapshot(time.Now())
		if b.Received != 2*warmBytes || b.Sent != 2*warmBytes || b.Active != 1 {
			t.Errorf("backend %+v", b)
		}
		flows := r.engine.Flows(10, stats.NewestFirst)
		if len(flows) != 1 {
			t.Fatalf("flows %+v", flows)
		}
		f := flows[0].Describe(r.engine.clock.Now())
		if f.Datapath != path || f.BytesSent != 2*warmBytes || f.Client != c.LocalAddr().String() || (f.Reason == "") != (path != "relay") {
			t.Errorf("flow %+v", f)
		}
		c.Close()
		expect(t, r.ended(1)[0], 200, accesslog.ClientClosed, 2*warmBytes, 2*warmBytes)
		if got := r.settings.Counters.Received.Load(); got != 2*warmBytes {
			t.Errorf("received %d after the end", got)
		}
	})
}

// Clients that never read, before a backend that never stops: what is taken
// from the backend stays bounded and flat, and the service goes on. The bound
// (docs/splice.md): the mark, one aggregated packet, a chunk of ours, and the
// sockets' own buffers, whose limits the kernel sets.
func TestSlowReadersAreBounded(t *testing.T) {
	const clients = 200
	const bound = 16 << 20
	datapaths(t, func(t *testing.T, path string) {
		flood := serve(t, func(c net.Conn) {
			io.CopyN(c, struct{ io.Reader }{c}, warmBytes)
			b := make([]byte, 32<<10)
			for {
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		})
		r := newRig(t, path, []string{flood}, nil)
		var cs []net.Conn
		for range clients {
			c := r.dial()
			warm(t, c)
			cs = append(cs, c)
		}
		taken := func() uint64 {
			r.engine.Flush()
			return r.pool.Backends()[0].Snapshot(time.Now()).Received
		}
		last := taken()
		flat := false
		for range 60 {
			time.Sleep(500 * time.Millisecond)
			now := taken()
			if now > clients*bound {
				t.Fatalf("%d bytes taken for %d clients that don't read: no bound", now, clients)
			}
			if flat = now == last; flat {
				break
			}
			last = now
		}
		if !flat {
			t.Errorf("still growing at %d bytes", last)
		}
		t.Logf("%s: %.2f MiB taken for each", path, float64(last)/clients/(1<<20))
		for _, c := range cs {
			c.Close()
		}
		r.ended(clients)
		r.empty()
	})
}

// A session that turned bulk in the map, with a target that reads in fits:
// every byte in order, and the direction goes back to the kernel when quiet.
func TestTakeOverAndHandBack(t *testing.T) {
	needSplice(t)
	const size = 48 << 20
	r := newRig(t, "splice", []string{serve(t, func(c net.Conn) {
		io.CopyN(c, struct{ io.Reader }{c}, warmBytes)
		io.CopyN(c, newStream(7, 'd'), size)
		io.Copy(struct{ io.Writer }{c}, c)
	})}, nil)
	c := r.dial()
	defer c.Close()
	warm(t, c)
	time.Sleep(300 * time.Millisecond) // the target's queues fill up
	if n, err := readAll(io.LimitReader(c, size), newStream(7, 'd'), 50); err != nil || n != size {
		t.Fatalf("%d bytes, %v", n, err)
	}
	s := r.session()
	var took bool
	down := func() *direction { return &s.mover.(*splicer).dir[1] }
	s.loop.call(func() { took = s.state == stateMoved && down().shared.Passed() > 0 })
	if !took {
		t.Error("userspace never took over: the mark was not reached")
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		var armed bool
		s.loop.call(func() { armed = down().phase.takenOver() })
		if !armed {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the direction never went back to the kernel")
		}
	}
	before := down().shared.Redirected()
	warm(t, c)
	if down().shared.Redirected() != before+warmBytes {
		t.Error("the kernel doesn't move the bytes again")
	}
	c.CloseWrite()
	io.ReadAll(c)
	expect(t, r.ended(1)[0], 200, accesslog.ClientClosed, 2*warmBytes, 2*warmBytes+size)
}

// Bytes that the kernel has lost end a session with a reset, also when nobody
// was told: never with a clean end.
func TestLostBytesReset(t *testing.T) {
	t.Parallel()
	needSplice(t)
	for _, end := range []string{"found by the sweep", "found at the end", "never written", "never written, and no end"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "splice", []string{serve(t, echo)}, nil)
			c := r.dial()
			defer c.Close()
			warm(t, c)
			s, sent := r.session(), uint64(warmBytes)
			s.loop.call(func() {
				const broken = 4 // BROKEN in bpf/splice_maps.h
				h := (*bpf.SpliceDirection)(unsafe.Pointer(s.mover.(*splicer).dir[0].shared))
				if strings.HasPrefix(end, "never written") {
					h.Redirected += 100
					sent += 100
				} else {
					h.Flags |= broken
				}
			})
			if end == "found at the end" || end == "never written" {
				c.CloseWrite()
			}
			c.SetDeadline(time.Now().Add(20 * time.Second))
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client sees %v", err)
			}
			expect(t, r.ended(1)[0], 200, accesslog.Internal, sent, warmBytes)
			r.empty()
		})
	}
}

// session is the only one there is.
func (r *rig) session() *pair {
	r.t.Helper()
	var s *pair
	for _, l := range r.engine.loops {
		l.call(func() {
			if l.sessions.head != nil {
				s = l.sessions.head
			}
		})
	}
	if s == nil {
		r.t.Fatal("no session")
	}
	return s
}
