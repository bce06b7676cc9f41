// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"sluice/internal/mono"
)

// withRig runs f as a step of the self-test, on fresh sockets.
func withRig(t *testing.T, o SpliceOptions, f func(t *testing.T, r *rig)) {
	t.Helper()
	inNamespace(t, func(t *testing.T) {
		s := must1(t, func() (*Splice, error) { return NewSplice(o) })
		defer func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}()
		_, err := runStep(context.Background(), s, step{run: func(r *rig) (string, error) {
			r.deadline = time.Now().Add(20 * time.Second)
			f(t, r)
			return "", nil
		}})
		if err != nil {
			t.Error(err)
		}
	})
}

// has says whether a map has the key.
func has(m *ebpf.Map, key any) bool {
	var v [8]byte
	return m.Lookup(key, unsafe.Pointer(&v)) == nil
}

// nothingLeft checks that Add undid everything. A socket leaves a map a
// little after its close: the kernel does that when the last reference goes.
func nothingLeft(t *testing.T, r *rig) {
	t.Helper()
	var key uint64
	var val uint32
	if it := r.s.objs.Indices.Iterate(); it.Next(&key, &val) {
		t.Errorf("socket %d is still recorded", key)
	}
	until := time.Now().Add(2 * time.Second)
	for side := range uint32(2) {
		i := 2*r.flow + side
		for _, m := range []*ebpf.Map{r.s.objs.Verdicts, r.s.objs.Targets} {
			for has(m, i) {
				if time.Now().After(until) {
					t.Errorf("index %d is still in %s", i, m)
					break
				}
				time.Sleep(time.Millisecond)
			}
		}
	}
}

// A failure at each step of Add leaves nothing, and the sockets as they were.
func TestAddUndoes(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(t *testing.T, r *rig) (client, back int)
		want    error
	}{
		{"client isn't a socket", func(t *testing.T, r *rig) (int, int) { return 0, r.back }, unix.ENOTSOCK},
		{"backend is closed", func(t *testing.T, r *rig) (int, int) { return r.front, 1 << 20 }, unix.EBADF},
		{"backend has closed its side", func(t *testing.T, r *rig) (int, int) {
			must(t, 0, unix.Shutdown(r.server, unix.SHUT_WR))
			must(t, 0, r.wait(r.back, unix.POLLRDHUP))
			return r.front, r.back
		}, unix.EOPNOTSUPP},
	} {
		t.Run(c.name, func(t *testing.T) {
			withRig(t, SpliceOptions{MaxFlows: 4}, func(t *testing.T, r *rig) {
				client, back := c.prepare(t, r)
				_, err := r.s.Add(r.flow, client, back)
				if !errors.Is(err, c.want) || errors.Is(err, ErrMoved) {
					t.Fatalf("error is %v, not %v", err, c.want)
				}
				nothingLeft(t, r)
				if err := r.move(r.client, r.front, pattern(100)); err != nil {
					t.Errorf("the client's socket afterwards: %v", err)
				}
				if err := r.move(r.back, r.server, pattern(100)); err != nil {
					t.Errorf("the backend's socket afterwards: %v", err)
				}
			})
		})
	}
}

// A backend that closes its side while the client's bytes have begun to move:
// they go on, and its own last bytes are in its socket.
func TestAddOneWay(t *testing.T) {
	var r *rig
	o := SpliceOptions{MaxFlows: 4, Pause: func() {
		if err := r.move(r.client, r.server, pattern(100)); err != nil {
			t.Error(err)
		}
		if err := r.send(r.server, pattern(50)); err != nil {
			t.Error(err)
		}
		if err := errors.Join(unix.Shutdown(r.server, unix.SHUT_WR), r.wait(r.back, unix.POLLRDHUP)); err != nil {
			t.Error(err)
		}
	}}
	withRig(t, o, func(t *testing.T, made *rig) {
		r = made
		if oneWay, err := r.s.Add(r.flow, r.front, r.back); !oneWay || err != nil {
			t.Fatalf("one way: %v, %v", oneWay, err)
		}
		got := must1(t, func() ([]byte, error) { return r.receive(r.back, 100) })
		must(t, 0, same(got, pattern(50)))
		must(t, 0, r.move(r.client, r.server, pattern(100000)))
		if up, down := r.direction(0), r.direction(1); up.Redirected() != 100100 || down.Redirected()+down.Passed() != 0 {
			t.Errorf("%d redirected up, %d down, %d passed", up.Redirected(), down.Redirected(), down.Passed())
		}
	})
}

// Once bytes have moved, undoing can't give them back, and the error says so.
func TestAddSaysMoved(t *testing.T) {
	withRig(t, SpliceOptions{MaxFlows: 4}, func(t *testing.T, r *rig) {
		must(t, 0, r.add())
		must(t, 0, r.move(r.client, r.server, pattern(10)))
		e := [2]entry{{fd: uint64(r.front), index: 2 * r.flow}, {fd: uint64(r.back), index: 2*r.flow + 1}}
		cause := errors.New("the cause")
		if err := r.s.undo(r.flow, &e, cause); !errors.Is(err, ErrMoved) || !errors.Is(err, cause) {
			t.Errorf("error is %v", err)
		}
		nothingLeft(t, r)
	})
}

// After Remove nothing is redirected, and closing empties the maps.
func TestRemove(t *testing.T) {
	withRig(t, SpliceOptions{MaxFlows: 4}, func(t *testing.T, r *rig) {
		must(t, 0, r.add())
		must(t, 0, r.move(r.client, r.server, pattern(10)))
		if !has(r.s.objs.Verdicts, 2*r.flow) || !has(r.s.objs.Targets, 2*r.flow+1) {
			t.Error("a flow's sockets can't be seen in the maps")
		}
		r.s.Remove(r.flow)
		r.s.Remove(r.flow)
		must(t, 0, r.move(r.client, r.front, pattern(10)))
		if n := r.s.Counts(); n.PassedNoFlow == 0 || n.Redirected != 1 {
			t.Errorf("counts %+v", n)
		}
		must(t, 0, reset(&r.front))
		must(t, 0, reset(&r.back))
		nothingLeft(t, r)
	})
}

// A record is of its flow only: a reused number starts from nothing.
func TestFlowIsReused(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		s := must1(t, func() (*Splice, error) { return NewSplice(SpliceOptions{MaxFlows: 1}) })
		defer s.Close()
		run := func() error {
			_, err := runStep(context.Background(), s, step{run: stepRedirect})
			return err
		}
		must(t, 0, run())
		if _, ok := s.Reserve(); ok {
			t.Error("a number was given again at once")
		}
		time.Sleep(quarantine + 20*time.Millisecond)
		must(t, 0, run())
	})
}

// The number and the time of runs are there for userspace to judge by.
func TestDirectionTellsActivity(t *testing.T) {
	withRig(t, SpliceOptions{MaxFlows: 4}, func(t *testing.T, r *rig) {
		clock := mono.New()
		began := uint64(clock.Now())
		must(t, 0, r.add())
		for range 5 {
			must(t, 0, r.move(r.client, r.server, pattern(64)))
			must(t, 0, r.move(r.server, r.client, pattern(40000)))
		}
		up, down := r.direction(0), r.direction(1)
		if up.Runs() != 5 || down.Runs() < 5 {
			t.Errorf("runs %d and %d", up.Runs(), down.Runs())
		}
		if at := up.LastActive(); at < began || at > uint64(clock.Now()) {
			t.Errorf("last active at %d, not since %d", at, began)
		}
	})
}

func TestFlows(t *testing.T) {
	now := int64(1000)
	f := newFlows(3)
	f.clock = func() int64 { return now }
	take := func(want uint32, ok bool) {
		t.Helper()
		if got, gotOK := f.reserve(); gotOK != ok || ok && got != want {
			t.Errorf("reserved %d, %v instead of %d, %v", got, gotOK, want, ok)
		}
	}
	take(0, true)
	f.free(0)
	take(1, true) // 0 is in quarantine
	now += int64(quarantine)
	take(0, true) // before one that was never used
	take(2, true)
	take(0, false)
	f.free(2)
	now++
	f.free(1)
	now += int64(quarantine) - 1
	take(2, true) // in the order of freeing
	take(0, false)
	now++
	take(1, true)
	for i := range uint32(200) {
		f.free(i)
	}
	now += int64(quarantine)
	for i := range uint32(200) {
		take(i, true)
	}
	take(0, false)
}

// The ring's records wrap around many times, none lost or doubled.
func TestEventsWrap(t *testing.T) {
	withRig(t, SpliceOptions{MaxFlows: 4}, func(t *testing.T, r *rig) {
		must(t, 0, r.add())
		up, n := r.direction(0), 0
		up.SetHold(true)
		buf := make([]byte, 64)
		const rounds = 20000 // of 16 bytes in a ring of 256 KiB
		for i := range rounds {
			must(t, 0, r.send(r.client, []byte{byte(i)}))
			must(t, 0, r.wait(r.front, unix.POLLIN))
			if got := must1(t, func() (int, error) { return unix.Read(r.front, buf) }); got != 1 || buf[0] != byte(i) {
				t.Fatalf("round %d: %d bytes, %d", i, got, buf[0])
			}
			up.AddForwarded(1)
			if i%100 == 0 {
				r.s.Drain(func(index uint32) {
					if index != 2*r.flow {
						t.Errorf("index %d", index)
					}
					n++
				})
			}
		}
		r.s.Drain(func(uint32) { n++ })
		if c := r.s.Counts(); n != rounds || c.EventLost != 0 {
			t.Errorf("%d announcements of %d; counts %+v", n, rounds, c)
		}
	})
}

func TestSpliceOptionsRange(t *testing.T) {
	for _, o := range []SpliceOptions{{MaxFlows: -1}, {MaxFlows: limitFlows + 1}, {Mark: 1<<30 + 1}} {
		if s, err := NewSplice(o); err == nil || !strings.Contains(err.Error(), "out of range") {
			t.Errorf("%+v: %v", o, err)
			s.Close()
		}
	}
}

// BenchmarkAdd is a session's way into the map and out of it, without its
// sockets' own making.
func BenchmarkAdd(b *testing.B) {
	s, err := NewSplice(SpliceOptions{MaxFlows: 1 << 16})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	r := &rig{s: s, patience: patience{time.Now().Add(time.Minute)}}
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		c, f, err := r.pair(false, 0)
		if err != nil {
			b.Fatal(err)
		}
		d, sv, err := r.pair(false, 0)
		if err != nil {
			b.Fatal(err)
		}
		flow, ok := s.Reserve()
		if !ok {
			b.Fatal("full")
		}
		b.StartTimer()
		if _, err := s.Add(flow, f, d); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		for _, fd := range []*int{&c, &f, &d, &sv} {
			reset(fd)
		}
		b.StartTimer()
		s.Remove(flow)
		s.Free(flow)
	}
}
