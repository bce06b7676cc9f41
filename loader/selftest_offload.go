// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/cilium/ebpf"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"sluice/internal/rawtcp"
)

// checkRaw opens what resets and probes of ours are sent by, which takes CAP_NET_RAW
// (*PermissionError). Close closes it.
func checkRaw() (*rawtcp.Sender, error) {
	raw, err := rawtcp.Open()
	if errors.Is(err, rawtcp.ErrNotPermitted) {
		return nil, &PermissionError{What: "offload", Capability: "CAP_NET_RAW", Err: err}
	}
	return raw, err
}

// andRaw adds to an error of loading what else is missing.
func andRaw(err error) error {
	raw, rawErr := checkRaw()
	if rawErr == nil {
		_ = raw.Close()
	}
	perm, also := new(PermissionError), new(PermissionError)
	switch {
	case err == nil:
		return rawErr
	case errors.As(err, &perm) && errors.As(rawErr, &also):
		return &PermissionError{What: perm.What, Capability: perm.Capability + ", " + also.Capability, Err: err}
	}
	return err
}

// SelftestOffload tries what offload rests on (docs/offload.md) with a Forward of its
// own: a session is registered, cut and let go on real sockets, between a client and a
// backend in network namespaces of their own. Without the right to make those
// (CAP_SYS_ADMIN), or without veth devices, its program is given packets instead, which
// Report.Where says. It stops at the first step that fails, takes less than a second,
// at most 5 s, and leaves nothing. The error is *PermissionError, *KernelError or matches ErrUnsafe and
// names the step; the report holds the steps so far in any case.
func SelftestOffload(ctx context.Context, log zerolog.Logger) (Report, error) {
	return selftestOffload(ctx, log, offloadFault{})
}

// packetsOnly begins Report.Where where no session can be tried.
const packetsOnly = "packets only"

// offloadFault is what tests break, to see the step that is there for it fail.
type offloadFault struct {
	stub     map[string]int32 // programs in whose place one stands that returns this
	without  string           // one of the program's rules (bpf/forward_rules.h)
	noHook   bool             // the program runs on no device
	noNote   bool             // the program isn't told on which it runs
	noRepair bool             // sockets are closed as usual
	packets  bool             // as if namespaces couldn't be made
	noVeth   bool             // as if the kernel had no veth devices
	clsact   bool             // no fault: the way of kernels before 6.6
	patience time.Duration    // no fault: beside other work, on an emulated processor; 0: totalTime
	// at is called at moments of a step: "registered", "cut", "alone", "ends",
	// "released"; with packets "record".
	at func(moment string, o *offloadTest, slot uint32)
}

// offloadTest is what the steps share.
type offloadTest struct {
	f     *Forward
	net   *testNet
	hooks hooks
	raw   *rawtcp.Sender
	fault offloadFault
	step  string // the one that is tried
}

func selftestOffload(ctx context.Context, log zerolog.Logger, fault offloadFault) (Report, error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(fault.patience, totalTime))
	defer cancel()
	var (
		report Report
		err    error
		done   = make(chan struct{})
	)
	go func() {
		defer close(done)
		runtime.LockOSThread() // not unlocked in a namespace of its own, which ends with it
		report.Where = packetsOnly + ": no right to make network namespaces"
		if !fault.packets && enterNamespace() {
			report.Where = "own network namespaces"
			err = offloadSteps(ctx, fault, &report)
			return
		}
		defer runtime.UnlockOSThread()
		err = packetSteps(ctx, fault, &report)
	}()
	<-done
	report.log(log, "offload self-test", err)
	return report, err
}

// load is the first step: the error keeps its type.
func (r *Report) load(fault offloadFault) (_ *offloadTest, err error) {
	began := time.Now()
	o := &offloadTest{fault: fault}
	o.f, err = newForward(ForwardOptions{MaxFlows: 64}, fault.edit)
	if err != nil {
		err = andRaw(err)
	} else if o.raw, err = checkRaw(); err != nil {
		o.close()
	}
	res := StepResult{Name: "load", OK: err == nil, Detail: "programs, maps and raw sockets", Took: time.Since(began)}
	if err != nil {
		res.Detail = err.Error()
	}
	r.Steps = append(r.Steps, res)
	return o, err
}

// edit puts the stubs in the programs' places.
func (fault offloadFault) edit(spec *ebpf.CollectionSpec) {
	for name, answer := range fault.stub {
		spec.Programs[name].Instructions = answers(answer)
	}
	if fault.without != "" {
		_ = spec.Variables[fault.without].Set(false) // which can't fail for one that is there
	}
}

// offloadSteps does them in order, until one fails. The thread is in a namespace of
// its own.
func offloadSteps(ctx context.Context, fault offloadFault, report *Report) error {
	o, err := report.load(fault)
	if err != nil {
		return err
	}
	defer o.close()
	if o.net, err = newTestNet(limit(ctx)); err == nil && fault.noVeth || errors.Is(err, errNoVeth) {
		report.Where = packetsOnly + ": " + errNoVeth.Error()
		return o.packetRun(ctx, report)
	}
	if err := report.try(ctx, "offload", "hook", func() (string, error) { return o.hook(err) }); err != nil {
		return err
	}
	for _, st := range offloadRun {
		if err := report.try(ctx, "offload", st.name, func() (string, error) { return o.runStep(ctx, st) }); err != nil {
			return err
		}
	}
	return report.try(ctx, "offload", "nothing left", o.nothingLeft)
}

// hook has the program run on both devices of the net, before all others. err is why
// there is no net.
func (o *offloadTest) hook(err error) (string, error) {
	if err != nil {
		return "", err
	}
	if o.hooks, _, err = newHooks(o.f.Program(), DevicesOptions{Clsact: o.fault.clsact}); err != nil {
		return "", err
	}
	for _, s := range o.net.sides {
		if !o.fault.noHook {
			if err := o.hooks.attach(s.index); err != nil {
				return "", fmt.Errorf("on %s: %w", s.ours, err)
			}
		}
		if there, before, err := o.hooks.look(s.index); err != nil || !there || before != "" {
			return "", fmt.Errorf("on %s: there %v, behind %q: %w", s.ours, there, before, errors.Join(errNotFirst, err))
		}
		if !o.fault.noNote {
			if err := o.f.DeviceMap().Put(uint32(s.index), uint32(deviceHooked|deviceFirst)); err != nil {
				return "", err
			}
		}
	}
	if _, ok := o.hooks.(*tcx); ok {
		return "tcx", nil
	}
	return "clsact", nil
}

var errNotFirst = errors.New("the program isn't the first that runs there")

// unhook takes the program off the devices.
func (o *offloadTest) unhook() error {
	var errs []error
	for _, s := range o.net.sides {
		errs = append(errs, o.hooks.detach(s.index))
	}
	return errors.Join(errs...)
}

func (o *offloadTest) close() {
	if o.hooks != nil {
		_ = o.hooks.close()
	}
	o.net.close()
	if o.raw != nil {
		_ = o.raw.Close()
	}
	_ = o.f.Close()
}

func (o *offloadTest) moment(name string, slot uint32) {
	if o.fault.at != nil {
		o.fault.at(name, o, slot)
	}
}

// nothingLeft sees that the program knows no flow any more.
func (o *offloadTest) nothingLeft() (string, error) {
	var (
		key  = make([]byte, o.f.objs.FlowKeys.KeySize())
		next = o.f.objs.FlowKeys.Iterate()
		n    int
	)
	for next.Next(&key, new([8]byte)) {
		n++
	}
	if err := next.Err(); err != nil {
		return "", fmt.Errorf("listing the keys: %w", err)
	}
	if n > 0 {
		return "", fmt.Errorf("%d keys of flows are left", n)
	}
	for slot := range uint32(o.f.max) {
		if state := o.f.Flow(slot).raw.State; state != stateFree {
			return "", fmt.Errorf("the record of flow %d is left in state %d", slot, state)
		}
	}
	return "no key, no record", nil
}

// closeAll closes what is open.
func closeAll(fds ...*int) {
	for _, fd := range fds {
		if *fd >= 0 {
			_ = unix.Close(*fd)
			*fd = -1
		}
	}
}
