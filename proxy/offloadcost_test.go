// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"sluice/bpf"
	"sluice/config"
	"sluice/internal/needs"
	"sluice/internal/netrig"
	"sluice/internal/nstest"
	"sluice/loader"
	"sluice/session"
)

// BenchmarkHandOver is what a session costs the loop that hands it over, in CPU time of
// its thread: registering, and letting both sockets go.
func BenchmarkHandOver(b *testing.B) {
	needs.Offload(b)
	elsewhere(b, netrig.Options{}, false)
	r := newRig(b, "offload", []string{serve(b, echo)}, nil)
	o := r.engine.offload.Load()
	var registering, lettingGo, n int64
	for b.Loop() {
		c := r.dial()
		exchange(b, c) // one isn't enough for it to be registered by itself
		s := r.session()
		s.loop.call(func() {
			s.noOffload = true
			begin := threadTime()
			if !s.enlist(o) {
				b.Error("the session doesn't fit")
				return
			}
			registering += threadTime() - begin
			s.fwd.rec.Disarm() // until a packet of each side has been seen
		})
		exchange(b, c)
		time.Sleep(60 * time.Millisecond) // and acknowledged
		s.loop.call(func() {
			s.fwd.rec.Arm()
			// The cut is the next packet's, and no loop's to notice before this one.
			if _, err := c.Write([]byte("12345678")); err != nil {
				b.Error(err)
			}
			for until := time.Now().Add(10 * time.Second); !s.fwd.rec.Cut(); {
				if time.Now().After(until) {
					b.Error("it isn't cut")
					return
				}
				time.Sleep(time.Millisecond)
			}
			begin := threadTime()
			s.fwd.takeOver()
			s.fwd.dropSockets()
			lettingGo += threadTime() - begin
			n++
		})
		if _, err := io.ReadFull(c, make([]byte, 8)); err != nil {
			b.Fatal(err)
		}
		c.Close()
		r.empty()
	}
	b.ReportMetric(float64(registering)/float64(n)/1e3, "µs-registering")
	b.ReportMetric(float64(lettingGo)/float64(n)/1e3, "µs-letting-go")
}

func exchange(t testing.TB, c net.Conn) {
	t.Helper()
	b := []byte("12345678")
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
}

// threadTime is the CPU time of the calling thread, in ns. A loop has its thread.
func threadTime() int64 { return cpuTime(unix.CLOCK_THREAD_CPUTIME_ID) }

func cpuTime(clock int32) int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		panic(err)
	}
	return ts.Nano()
}

// BenchmarkIdleFlows is what 100 000 sessions that are forwarded and silent cost: the
// look at each of them once a second. They are taken over from a process that never was.
func BenchmarkIdleFlows(b *testing.B) {
	needs.Offload(b)
	const flows = 100_000
	path := nstest.PinPath(b)
	pin, err := loader.OpenPin(path)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := pin.Clear(); err != nil {
			b.Error(err)
		}
		if err := pin.Close(); err != nil {
			b.Error(err)
		}
	})
	before, err := loader.NewForward(loader.ForwardOptions{MaxFlows: flows, Pin: pin})
	if err != nil {
		b.Fatal(err)
	}
	if err := before.Close(); err != nil {
		b.Fatal(err)
	}
	now := cpuTime(unix.CLOCK_MONOTONIC)
	makeIdle(b, path, flows, now)
	forward, err := loader.NewForward(loader.ForwardOptions{MaxFlows: flows, Pin: pin})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := forward.Close(); err != nil {
			b.Error(err)
		}
	})
	r := newRigOf(b, "offload", []string{"198.18.1.2:80"}, func(c *config.Listener) { c.IdleTimeout = 24 * time.Hour },
		Options{Loops: 2, Offload: &Offload{Forward: forward, Ports: nowhere{}, Raw: nowhere{}}})
	var adopted int
	r.engine.sessions.Update(func() {
		adopted, _ = r.engine.Adopt(func(*session.Saved) Heir { return Heir{r.settings, r.pool, r.pool.Backends()[0]} })
	})
	if adopted != flows {
		b.Fatalf("%d sessions are taken over", adopted)
	}
	time.Sleep(3 * time.Second) // until each loop has seen them once
	began, used := time.Now(), cpuTime(unix.CLOCK_PROCESS_CPUTIME_ID)
	for b.Loop() {
		time.Sleep(time.Second)
	}
	share := float64(cpuTime(unix.CLOCK_PROCESS_CPUTIME_ID)-used) / float64(time.Since(began))
	b.ReportMetric(100*share, "%-of-a-core")
	b.ReportMetric(share*float64(time.Second)/flows, "ns/flow/s")
}

// makeIdle writes the records of flows that are forwarded, and what is saved of them.
func makeIdle(b *testing.B, path string, flows uint32, now int64) {
	b.Helper()
	open := func(name string) *ebpf.Map {
		m, err := ebpf.LoadPinnedMap(filepath.Join(path, name), nil)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { m.Close() })
		return m
	}
	records, saved := open("records"), open("saved")
	const forwarded = 3 // FORWARDED of bpf/forward_maps.h
	for flow := range flows {
		client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(flow >> 16), byte(flow >> 8)}), uint16(flow)|1<<15)
		r := bpf.ForwardFlowRecord{State: forwarded, Flags: 3, Index: flow, CutNs: uint64(now)}
		for side, to := range []netip.AddrPort{netip.MustParseAddrPort("198.18.1.2:80"), client} {
			d := &r.Side[side]
			a := to.Addr().As16()
			for i := range d.Daddr {
				d.Daddr[i] = binary.NativeEndian.Uint32(a[4*i:])
			}
			d.Dport = to.Port()
			d.SeenNs, d.DataNs = uint64(now), uint64(now)
		}
		k := someKept(5)
		k.Session.ID, k.Session.Client, k.Session.Begun, k.Session.Tried, k.Session.First, k.Last = uint64(flow), client, now, now, now, now
		what, err := k.encode()
		if err == nil {
			err = saved.Put(flow, append(what, make([]byte, loader.SavedBytes-len(what))...))
		}
		if err == nil {
			err = records.Put(flow, &r)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// nowhere stands in for what flows of nobody need.
type nowhere struct{}

func (nowhere) Take(netip.AddrPort) (uint16, bool)           { return 0, false }
func (nowhere) Give(netip.AddrPort, uint16, time.Duration)   {}
func (nowhere) Reset(_, _ netip.AddrPort, _ uint32) error    { return nil }
func (nowhere) Probe(_, _ netip.AddrPort, _, _ uint32) error { return nil }
