// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"io"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sluice/internal/rawtcp"
	"sluice/internal/srcports"
	"sluice/loader"
)

// countedPorts are ports of which one that isn't given back is missed.
type countedPorts struct {
	Ports
	out, all atomic.Int64
}

func (p *countedPorts) Take(backend netip.AddrPort) (uint16, bool) {
	port, ok := p.Ports.Take(backend)
	if ok {
		p.out.Add(1)
		p.all.Add(1)
	}
	return port, ok
}

func (p *countedPorts) Give(backend netip.AddrPort, port uint16, rest time.Duration) {
	p.out.Add(-1)
	p.Ports.Give(backend, port, rest)
}

// newOffload is what an engine of the test needs to have packets forwarded. Once the
// engine is closed no flow and no port may be taken any more.
func newOffload(t testing.TB, flows int) *Offload {
	t.Helper()
	return newOffloadOf(t, flows, true)
}

// newOffloadOf may go without the program that makes our own SYNs plain.
func newOffloadOf(t testing.TB, flows int, plain bool) *Offload {
	t.Helper()
	f, err := loader.NewForward(loader.ForwardOptions{MaxFlows: flows})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	var o loader.DevicesOptions
	if plain {
		o.Egress = f.StripProgram()
	}
	d, err := loader.NewDevices(f.Program(), f.DeviceMap(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("devices: %+v", d.List())
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	sysctls, err := srcports.ReadSysctls()
	if err != nil {
		t.Fatal(err)
	}
	ranges, err := srcports.Choose(nil, sysctls)
	if err != nil {
		t.Fatal(err)
	}
	ports := &countedPorts{Ports: srcports.New(ranges, time.Now)}
	t.Cleanup(func() {
		if n := ports.out.Load(); n != 0 {
			t.Errorf("%d ports are taken after the end", n)
		}
		if err := ports.Ports.(*srcports.Ports).Close(); err != nil {
			t.Error(err)
		}
	})
	raw, err := rawtcp.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	t.Cleanup(func() { allFree(t, f) })
	return &Offload{Forward: f, Ports: ports, Raw: raw}
}

// allFree checks that every flow can be had: a number rests for a while after use.
func allFree(t testing.TB, f *loader.Forward) {
	t.Helper()
	n := 0
	for end := time.Now().Add(10 * time.Second); n < f.MaxFlows(); {
		flow, ok := f.Reserve()
		switch {
		case ok:
			defer f.Release(flow)
			n++
		case time.Now().After(end):
			t.Errorf("%d flows of %d are taken after the end", f.MaxFlows()-n, f.MaxFlows())
			return
		default:
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// endOfOurs is what a client sees of a session in mid-life that we end: forwarded ones
// have no socket that could say more than a reset.
func endOfOurs(path string) error {
	if path == "offload" {
		return syscall.ECONNRESET
	}
	return io.EOF
}

// moved waits until the only session is on the better datapath.
func (r *rig) moved() *pair {
	r.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		s, on := r.session(), false
		s.loop.call(func() { on = s.state == stateMoved })
		if on {
			return s
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("the session doesn't leave its loop:\n%s", r.left())
		}
	}
}

// outcomes are what the forward program has counted; nil where it isn't loaded.
func (r *rig) outcomes() []loader.Outcome {
	if o := r.engine.offload.Load(); o != nil {
		return o.Forward.Outcomes()
	}
	return nil
}
