// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Exit codes of a run whose program didn't come to its end. They are those of
// timeout(1).
const (
	ExitTimeout = 124
	ExitDied    = 125
)

// logLines is how much of the kernel log's end is shown when a run goes wrong.
const logLines = 60

// Spec says what to run on which kernel.
type Spec struct {
	Kernel Kernel
	// Command is the program, an absolute path of the host, and its arguments.
	Command []string
	// Dir is the working folder, absolute; the Go module around it comes along.
	Dir string
	// Env is the program's environment, beside PATH, HOME and SLUICE_VM_KERNEL.
	Env []string
	// Memory in MiB, and CPUs.
	Memory, CPUs int
	// Timeout for the guest, boot included.
	Timeout time.Duration
	// Accel is auto, kvm or tcg.
	Accel string
	// Tools are programs of the host that the guest needs, by name, beside the usual.
	Tools []string
	// Modules are kernel modules beside those of modules.list; "?" at the end: optional.
	Modules []string
	// Files are further files: guest path to host path.
	Files map[string]string
	// Bring are files that the program writes and that are wanted here afterwards.
	Bring []string
	// Stdout and Stderr get the program's output. Stderr nil: both go to Stdout, in order.
	Stdout, Stderr io.Writer
	// AllowWarnings: a kernel warning while the program ran doesn't fail the run.
	AllowWarnings bool
}

// Result is how a run went.
type Result struct {
	// Code is the program's exit code, 128+n after signal n; ExitTimeout, ExitDied.
	Code int
	// Trouble says what went wrong beside the program itself, with the kernel
	// log's end; empty for a run that came to its end.
	Trouble string
	// Release is the guest's uname -r.
	Release string
	// Boot is the time until the program started, Wall that of the whole run.
	Boot, Wall time.Duration
}

// Run boots the kernel, runs the program and ends the guest. An error means that
// there was no run. Cancelling the context ends the guest.
func Run(ctx context.Context, cache *Cache, s *Spec) (Result, error) {
	slot, err := cache.slot(ctx.Done())
	if err != nil {
		return Result{}, err
	}
	defer slot.Close()
	start := time.Now()
	accel, err := accelArgs(cache, s.Accel, s.Kernel.Image)
	if err != nil {
		return Result{}, err
	}
	g := &guestSpec{
		Command: s.Command, Dir: s.Dir, Env: guestEnv(s), Split: s.Stderr != nil,
		Marker: "\x00vmtest-end-" + rand.Text(), Bring: s.Bring,
	}
	names := []string{"console", portControl, portOut}
	if g.Split {
		names = append(names, portErr)
	}
	m, err := newMachine(names...)
	if err != nil {
		return Result{}, err
	}
	defer m.Close()
	if err := writeImage(m.initramfs(), s, g); err != nil {
		return Result{}, fmt.Errorf("pack the guest: %w", err)
	}
	if err := m.start(append(m.args(s, accel), m.portArgs()...)); err != nil {
		return Result{}, err
	}
	r := &run{spec: s, guest: g, machine: m, start: start}
	res, err := r.watch(ctx)
	res.Wall = time.Since(start)
	return res, err
}

// guestEnv is the program's environment.
func guestEnv(s *Spec) []string {
	return append([]string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "USER=root", "SLUICE_VM_KERNEL=" + s.Kernel.Name,
	}, s.Env...)
}

// run is a guest being watched.
type run struct {
	spec    *Spec
	guest   *guestSpec
	machine *machine
	start   time.Time
	console tail
	res     Result
}

// watch follows the guest to its end.
func (r *run) watch(ctx context.Context) (Result, error) {
	timeout := time.NewTimer(r.spec.Timeout)
	defer timeout.Stop()
	conns := map[string]net.Conn{}
	for name := range r.machine.ports {
		c, err := r.machine.accept(name)
		if err != nil {
			return r.res, errors.Join(err, r.qemuError())
		}
		defer c.Close()
		conns[name] = c
	}
	logged := make(chan struct{})
	go func() {
		defer close(logged)
		_, _ = io.Copy(&r.console, conns["console"]) // its end is QEMU's end, seen below
	}()
	output := r.copyOutput(conns)
	events := make(chan event)
	go readEvents(conns[portControl], events)
	for {
		select {
		case e, ok := <-events:
			if !ok {
				return r.died(logged, output)
			}
			if done, err := r.handle(e, output); done || err != nil {
				return r.res, err
			}
		case <-timeout.C:
			r.giveUp(conns[portControl], output)
			r.fail(ExitTimeout, fmt.Sprintf("timeout: the guest didn't end within %v", r.spec.Timeout))
			return r.res, nil
		case <-ctx.Done():
			r.giveUp(conns[portControl], output)
			r.fail(ExitTimeout, "interrupted")
			return r.res, nil
		}
	}
}

// copyOutput passes the program's output on; the channel gets an error or nil a
// port, after its end marker or with QEMU's end.
func (r *run) copyOutput(conns map[string]net.Conn) <-chan error {
	to := map[string]io.Writer{portOut: r.spec.Stdout}
	if r.guest.Split {
		to[portErr] = r.spec.Stderr
	}
	done := make(chan error, len(to))
	for port, w := range to {
		go func() {
			_, err := copyUntil(w, conns[port], []byte(r.guest.Marker))
			done <- err
		}()
	}
	return done
}

// readEvents decodes what the guest reports until the port ends.
func readEvents(from io.Reader, to chan<- event) {
	defer close(to)
	for d := json.NewDecoder(from); ; {
		var e event
		if d.Decode(&e) != nil {
			return
		}
		to <- e
		if e.Kind == eventExit || e.Kind == eventError {
			return
		}
	}
}

// handle takes one event; done after the last one.
func (r *run) handle(e event, output <-chan error) (done bool, err error) {
	switch e.Kind {
	case eventReady:
		r.res.Release, r.res.Boot = e.Release, time.Since(r.start)
	case eventFile:
		if err := os.MkdirAll(filepath.Dir(e.Path), 0o755); err != nil {
			return true, err
		}
		return false, os.WriteFile(e.Path, e.Data, 0o644)
	case eventError:
		r.fail(ExitDied, "the guest could not run the program: "+e.Text)
		return true, nil
	case eventExit:
		for range cap(output) {
			if err := <-output; err != nil {
				return true, fmt.Errorf("pass the output on: %w", err)
			}
		}
		r.res.Code = e.Code
		if e.Signal != "" {
			r.res.Trouble = "the program was ended by " + e.Signal
		}
		if e.Code != 0 && shortOfMemory(r.console.text()) {
			r.fail(e.Code, "the guest ran short of memory: -memory gives it more")
		}
		if e.Taint&taintBad != 0 && !r.spec.AllowWarnings {
			r.fail(max(e.Code, 1), "the kernel warned while the program ran")
		}
		return true, nil
	}
	return false, nil
}

// shortOfMemory says whether a kernel log tells of it. A program may then end
// without a word: what it writes needs memory too.
func shortOfMemory(log string) bool {
	return strings.Contains(log, "Out of memory:") || strings.Contains(log, "page allocation failure")
}

// died ends a run whose guest is gone without a word: a panic, an oops, a reboot.
func (r *run) died(logged <-chan struct{}, output <-chan error) (Result, error) {
	select {
	case <-logged:
	case <-time.After(10 * time.Second):
	}
	for range cap(output) {
		select {
		case <-output:
		case <-time.After(time.Second):
		}
	}
	what := "the guest's kernel died"
	if err := r.qemuError(); err != nil {
		what = err.Error()
	}
	r.fail(ExitDied, what)
	return r.res, nil
}

// qemuError is QEMU's own complaint, if it ended with one.
func (r *run) qemuError() error {
	select {
	case err := <-r.machine.died:
		r.machine.died <- err
		return err
	default:
		return nil
	}
}

// giveUp asks a guest that hangs for its goroutines and blocked tasks, and gives
// it a moment to say them.
func (r *run) giveUp(control net.Conn, output <-chan error) {
	_ = control.SetWriteDeadline(time.Now().Add(time.Second)) // a guest that is dead doesn't read
	if _, err := io.WriteString(control, orderDump); err != nil {
		return
	}
	end := time.After(5 * time.Second)
	for range cap(output) {
		select {
		case <-output:
		case <-end:
			return
		}
	}
	time.Sleep(200 * time.Millisecond) // the kernel's part comes by the serial line
}

// fail notes what went wrong with the kernel log's end.
func (r *run) fail(code int, what string) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (kernel %s)", what, r.spec.Kernel.Name)
	if log := r.console.lines(logLines); log != "" {
		fmt.Fprintf(&b, "\nthe end of its log:\n%s", log)
	}
	r.res.Code, r.res.Trouble = code, b.String()
}
