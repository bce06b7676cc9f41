// SPDX-License-Identifier: Apache-2.0

// Command vmtest runs the suites of vmtest/suites on every kernel of
// vmtest/kernels.list and writes docs/kernels.md from what they said. It is
// started in the tree's root, by `make vmtest`.
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

	"sluice/vmtest"
)

func main() {
	if vmtest.InGuest() {
		vmtest.Guest()
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ok, err := run(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "vmtest:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

type options struct {
	kernels         []string
	suites          [][]string // package, further arguments for its test binary
	out, logs       string
	timeout         time.Duration
	refresh, sluice bool
}

func parse(args []string) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("vmtest", flag.ContinueOnError)
	kernels := f.String("kernels", "", "`names` of kernels.list, with commas (default: all; docs/kernels.md is written only then)")
	suites := f.String("suites", "", "`packages`, with commas (default: those of vmtest/suites)")
	f.StringVar(&o.out, "out", "docs/kernels.md", "the table's `file`")
	f.StringVar(&o.logs, "logs", "", "`folder` for each run's whole output (default: one under the temporary folder)")
	f.DurationVar(&o.timeout, "timeout", 10*time.Minute, "for one suite on one kernel")
	f.BoolVar(&o.sluice, "sluice", true, "ask sluice doctor and sluice selftest too")
	f.BoolVar(&o.refresh, "refresh", false, "fetch the kernels anew")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("stray argument %q", f.Arg(0))
	}
	if *suites != "" {
		for s := range strings.SplitSeq(*suites, ",") {
			o.suites = append(o.suites, []string{s})
		}
	} else {
		text, err := os.ReadFile("vmtest/suites")
		if err != nil {
			return nil, fmt.Errorf("start this in the tree's root: %w", err)
		}
		o.suites = lines(string(text))
	}
	if *kernels != "" {
		o.kernels, o.out = strings.Split(*kernels, ","), ""
		return o, nil
	}
	all, err := vmtest.Packages()
	for _, p := range all {
		o.kernels = append(o.kernels, p.Name)
	}
	return o, err
}

// lines are the lines of a list file in words, without comments.
func lines(text string) [][]string {
	var all [][]string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		if f := strings.Fields(line); len(f) > 0 {
			all = append(all, f)
		}
	}
	return all
}

// run says whether every suite passed on every kernel.
func run(ctx context.Context, args []string) (bool, error) {
	o, err := parse(args)
	if err != nil {
		return false, err
	}
	cache, err := vmtest.OpenCache()
	if err != nil {
		return false, err
	}
	tmp, err := os.MkdirTemp("", "vmtest-suites-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(tmp)
	if o.logs == "" {
		if o.logs, err = os.MkdirTemp("", "vmtest-logs-"); err != nil {
			return false, err
		}
	} else if err := os.MkdirAll(o.logs, 0o755); err != nil {
		return false, err
	}
	jobs, err := build(ctx, tmp, o.suites, o.sluice)
	if err != nil {
		return false, err
	}
	ok := true
	var rows []row
	for _, name := range o.kernels {
		r, err := onKernel(ctx, cache, o, name, jobs)
		if err != nil {
			return false, err
		}
		ok = ok && r.ok()
		rows = append(rows, r)
	}
	fmt.Println("whole output:", o.logs)
	text := table(rows)
	if o.out == "" {
		fmt.Print(text)
		return ok, nil
	}
	return ok, os.WriteFile(filepath.FromSlash(o.out), []byte(text), 0o644)
}
