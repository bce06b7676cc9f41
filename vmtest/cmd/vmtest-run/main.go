// SPDX-License-Identifier: Apache-2.0

// Command vmtest-run runs a program of this machine on another kernel, in a
// virtual machine:
//
//	go test -exec "$(pwd)/vmtest-run -kernel 6.1" ./loader
//
// It is process 1 of the guest as well.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sluice/vmtest"
)

func main() {
	if vmtest.InGuest() {
		vmtest.Guest()
	}
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "vmtest-run:", err)
		code = vmtest.ExitDied
	}
	os.Exit(code)
}

// words is a flag that may be given more than once.
type words []string

func (w *words) String() string     { return strings.Join(*w, ",") }
func (w *words) Set(v string) error { *w = append(*w, strings.Split(v, ",")...); return nil }

type options struct {
	kernel, modulesDir, accel    string
	memory, cpus                 int
	timeout                      time.Duration
	tools, modules, files, env   words
	refresh, fetchOnly, warnings bool
	shell, verbose               bool
	command                      []string
}

func parse(args []string) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("vmtest-run", flag.ContinueOnError)
	f.StringVar(&o.kernel, "kernel", "6.1", "a `name` of kernels.list, or the path of an image (with a slash in it)")
	f.StringVar(&o.modulesDir, "modules-dir", "", "the lib/modules/RELEASE `folder` of an image given by path")
	f.StringVar(&o.accel, "accel", "auto", "auto, kvm or tcg")
	f.IntVar(&o.memory, "memory", 2048, "of the guest, in `MiB`")
	f.IntVar(&o.cpus, "cpus", 2, "of the guest")
	f.DurationVar(&o.timeout, "timeout", 0, "for the guest, boot included (default: a test binary's own and 30s, else 10m)")
	f.Var(&o.tools, "tool", "a program of this machine that the guest needs, by `name`; more than once, or with commas")
	f.Var(&o.modules, "module", "a kernel module beside modules.list; `name`? if it may be missing")
	f.Var(&o.files, "file", "a further file, `GUEST=HOST` paths")
	f.Var(&o.env, "env", "`NAME=VALUE` for the program; GO* and SLUICE_* are passed on anyway")
	f.BoolVar(&o.refresh, "refresh", false, "fetch the kernel anew")
	f.BoolVar(&o.fetchOnly, "fetch", false, "fetch the kernel, say its version, run nothing")
	f.BoolVar(&o.warnings, "allow-warnings", false, "a kernel warning doesn't fail the run")
	f.BoolVar(&o.shell, "shell", false, "the program is interactive and gets this terminal")
	f.BoolVar(&o.verbose, "v", false, "say at the end how long it took")
	f.Usage = func() {
		fmt.Fprintln(f.Output(), "usage: vmtest-run [flags] PROGRAM [ARGUMENTS]")
		f.PrintDefaults()
	}
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	o.command = f.Args()
	if len(o.command) == 0 && !o.fetchOnly {
		f.Usage()
		return nil, fmt.Errorf("no program to run")
	}
	return o, nil
}

func run(args []string) (int, error) {
	o, err := parse(args)
	if err != nil {
		return 0, err
	}
	cache, err := vmtest.OpenCache()
	if err != nil {
		return 0, err
	}
	kernel, err := vmtest.Find(cache, o.kernel, o.modulesDir, o.refresh)
	if err != nil {
		return 0, err
	}
	if o.fetchOnly {
		fmt.Println(kernel.Name, kernel.Version, kernel.Image)
		return 0, nil
	}
	s, err := o.spec(kernel)
	if err != nil {
		return 0, err
	}
	if o.shell {
		return 0, vmtest.Shell(cache, s)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	defer stop()
	res, err := vmtest.Run(ctx, cache, s)
	if err != nil {
		return 0, err
	}
	if res.Trouble != "" {
		fmt.Fprintln(os.Stderr, "vmtest-run:", res.Trouble)
	}
	if o.verbose {
		fmt.Fprintf(os.Stderr, "vmtest-run: kernel %s (%s): booted in %.1fs, %.1fs in all\n",
			kernel.Name, res.Release, res.Boot.Seconds(), res.Wall.Seconds())
	}
	return res.Code, nil
}

// spec turns the flags and the program's arguments into what to run.
func (o *options) spec(kernel vmtest.Kernel) (*vmtest.Spec, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	program, err := filepath.Abs(o.command[0])
	if err != nil {
		return nil, err
	}
	s := &vmtest.Spec{
		Kernel: kernel, Command: append([]string{program}, o.command[1:]...), Dir: dir,
		Env: append(vmtest.PassedOn(os.Environ()), o.env...), Memory: o.memory, CPUs: o.cpus, Timeout: o.timeout, Accel: o.accel,
		Tools: o.tools, Modules: o.modules, Files: map[string]string{},
		Bring: vmtest.TestOutputs(o.command[1:], dir), AllowWarnings: o.warnings,
		Stdout: os.Stdout, Stderr: os.Stderr,
	}
	if s.Timeout == 0 {
		s.Timeout = vmtest.TestTimeout(o.command[1:])
	}
	for _, f := range o.files {
		guest, host, ok := strings.Cut(f, "=")
		if !ok {
			return nil, fmt.Errorf("-file %s: want GUEST=HOST", f)
		}
		s.Files[guest] = host
	}
	if sameFile(os.Stdout, os.Stderr) {
		s.Stderr = nil
	}
	return s, nil
}

// sameFile says whether both are the same pipe, file or terminal, as under `go
// test`: then one port keeps the order of what the program writes to them.
func sameFile(a, b *os.File) bool {
	var x, y unix.Stat_t
	return unix.Fstat(int(a.Fd()), &x) == nil && unix.Fstat(int(b.Fd()), &y) == nil &&
		x.Dev == y.Dev && x.Ino == y.Ino
}
