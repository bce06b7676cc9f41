// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// alive says which of the kernel's objects are still there, by a function of
// each that opens it by its id.
type alive map[string]func() error

func (a alive) addMap(t *testing.T, m *ebpf.Map) {
	info := must1(t, m.Info)
	id, _ := info.ID()
	a["map "+info.Name] = func() error {
		m, err := ebpf.NewMapFromID(id)
		if err == nil {
			m.Close()
		}
		return err
	}
}

func (a alive) addProgram(t *testing.T, p *ebpf.Program) {
	info := must1(t, p.Info)
	id, _ := info.ID()
	a["program "+info.Name] = func() error {
		p, err := ebpf.NewProgramFromID(id)
		if err == nil {
			p.Close()
		}
		return err
	}
}

func (a alive) addLink(t *testing.T, l link.Link) {
	info := must1(t, l.Info)
	a["link"] = func() error {
		l, err := link.NewFromID(info.ID)
		if err == nil {
			l.Close()
		}
		return err
	}
}

// gone waits until all are: the kernel frees some after a grace period.
func (a alive) gone(t *testing.T) {
	t.Helper()
	for until := time.Now().Add(20 * time.Second); len(a) > 0; time.Sleep(10 * time.Millisecond) {
		for name, open := range a {
			if open() != nil {
				delete(a, name)
			}
		}
		if time.Now().After(until) {
			for name := range a {
				t.Errorf("still in the kernel: %s", name)
			}
			return
		}
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		Probe() // what is opened once for all: type information, probes
		before := openFDs(t)
		left := alive{}

		d, err := NewDispatch(zerolog.Nop())
		if withoutAtomics() {
			atomicsMissed(t, err)
		} else {
			must(t, 0, err)
			for _, m := range []*ebpf.Map{d.objs.Boards, d.objs.Windows, d.objs.Listeners, d.objs.Remembered, d.objs.DispatchCounts} {
				left.addMap(t, m)
			}
			left.addProgram(t, d.objs.Dispatch)
			left.addLink(t, d.link)
			must(t, 0, d.Close())
		}

		s := must1(t, func() (*Splice, error) { return NewSplice(SpliceOptions{MaxFlows: 8}) })
		for _, m := range []*ebpf.Map{s.objs.Directions, s.objs.Events, s.objs.Indices, s.objs.SpliceCounts, s.objs.Targets, s.objs.Verdicts} {
			left.addMap(t, m)
		}
		left.addProgram(t, s.objs.Verdict)
		must(t, 0, s.Close())

		left.gone(t)
		refused := CheckRelease()
		if _, err := Selftest(context.Background(), zerolog.Nop()); (err == nil) != (refused == nil) {
			t.Error(err)
		}
		_, err = selftestOffload(context.Background(), zerolog.Nop(), offloadFault{at: func(m string, o *offloadTest, _ uint32) {
			if m != "alone" || o.step != "let go" {
				return
			}
			for _, m := range []*ebpf.Map{o.f.objs.Records, o.f.objs.Watches, o.f.objs.FlowKeys, o.f.objs.ForwardEvents, o.f.objs.ForwardDevices} {
				left.addMap(t, m)
			}
			left.addProgram(t, o.f.objs.Forward)
		}})
		lacked := new(KernelError)
		if !errors.As(err, &lacked) {
			lacked = nil
			must(t, 0, err)
			if len(left) == 0 {
				t.Error("nothing of the offload self-test was seen")
			}
		}
		left.gone(t)
		for _, f := range Probe() {
			want := f.Name == "relay" || f.Name == "offload" && lacked == nil || f.Name == "dispatch" && !withoutAtomics() || f.Name == "splice" && refused == nil
			if f.OK != want {
				t.Errorf("%+v", f)
			}
		}
		if after := openFDs(t); after > before {
			t.Errorf("%d descriptors, %d before", after, before)
		}
	})
}

// Whichever step of a start runs out of descriptors, all before it is undone.
func TestFailedStartLeavesNothing(t *testing.T) {
	for name, start := range map[string]func() (interface{ Close() error }, error){
		"dispatch": func() (interface{ Close() error }, error) { return NewDispatch(zerolog.Nop()) },
		"splice":   func() (interface{ Close() error }, error) { return NewSplice(SpliceOptions{MaxFlows: 8}) },
		"offload self-test": func() (interface{ Close() error }, error) {
			_, err := SelftestOffload(context.Background(), zerolog.Nop())
			return io.NopCloser(nil), err
		},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "dispatch" {
				needDispatch(t) // TestRefusals sees that a refused one leaves nothing
			}
			if name == "offload self-test" {
				needForward(t)
			}
			inNamespace(t, func(t *testing.T) {
				began := time.Now()
				c := must1(t, start) // what is opened once for all: type information, probes
				must(t, 0, c.Close())
				step := 1
				if time.Since(began) > time.Second {
					step = 3 // an emulated processor
				}
				var old unix.Rlimit
				must(t, 0, unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
				defer unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
				before, failures := openFDs(t), 0
				for n := before; ; n += step {
					if n > before+100 {
						t.Fatal("it never starts")
					}
					must(t, 0, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(n), Max: old.Max}))
					c, err := start()
					must(t, 0, unix.Setrlimit(unix.RLIMIT_NOFILE, &old))
					if err == nil {
						must(t, 0, c.Close())
						break
					}
					failures++
					runtime.GC() // a descriptor closed by a finalizer only is a leak too, but not one of this test
					if after := openFDs(t); after > before {
						t.Fatalf("with %d descriptors (%v): %d are open, %d before", n, err, after, before)
					}
				}
				if failures < 3/step {
					t.Errorf("only %d starts failed", failures)
				}
			})
		})
	}
}

func ExampleReport_Failed() {
	r := Report{Steps: []StepResult{{Name: "kernel", OK: true}, {Name: "load", Detail: "no"}}}
	fmt.Println(r.Safe(), r.Failed().Name)
	// Output: false load
}
