// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"sluice/bench/contender"
	"sluice/bench/measure"
	"sluice/bench/report"
	"sluice/bench/result"
)

func profileCommand() *cli.Command {
	return &cli.Command{Name: "profile", Usage: "where the time of a datapath goes, kernel and user", ArgsUsage: "DATAPATH WORKLOAD",
		Description: "DATAPATH is offload, splice, relay, auto or nat, or the name of any contender. perf samples the whole box with\n" +
			"the cpu-clock event, which also works where a virtual machine has no performance counters.",
		Flags: []cli.Flag{sluiceFlag(), congestionFlag(),
			&cli.Float64Flag{Name: "seconds", Value: 5},
			&cli.IntFlag{Name: "top", Value: 40, Usage: "lines of the table"},
			&cli.BoolFlag{Name: "pinned", Usage: "everything on core 0"},
			&cli.StringFlag{Name: "o", Value: filepath.Join(os.TempDir(), "sluice-perf.data"), Usage: "the samples; `perf report -g -i FILE` shows who calls"}},
		Action: func(c *cli.Context) error {
			if c.NArg() != 2 {
				return errors.New("profile takes a datapath and a workload; flags go before them")
			}
			return profile(c, c.Args().Get(0), c.Args().Get(1))
		}}
}

func profile(c *cli.Context, name, workload string) (err error) {
	perf, err := exec.LookPath("perf")
	if err != nil {
		return errors.New("perf is not installed; `make bench-perf` installs it (Debian: linux-perf)")
	}
	if !slices.Contains(contender.Names(), name) {
		name = "sluice-" + name
	}
	list, err := measure.Select([]string{workload})
	if err != nil {
		return err
	}
	root, err := sourceRoot()
	if err != nil {
		return err
	}
	dir, remove, err := measure.Temp()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	contenders, err := contender.Find(c.Context, []string{name}, c.String("sluice"), root, dir)
	if err != nil {
		return err
	}
	// The program has to be there as long as its symbols are looked up.
	p := &profiler{Terminal: report.NewTerminal(os.Stdout, false), ctx: c.Context, perf: perf, file: c.String("o"), window: c.Float64("seconds")}
	plan := measure.Plan{Workloads: list, Contenders: contenders, Rounds: 1, Dir: dir, Pinned: c.Bool("pinned"), Congestion: c.String("congestion"),
		Window: time.Duration(c.Float64("seconds") * float64(time.Second)), Report: p}
	run := &result.Run{Version: result.Version, Mode: "profile", Started: time.Now()}
	if err := errors.Join(plan.Run(c.Context, run), p.err); err != nil {
		return err
	}
	if err := measured(run); err != nil {
		return err
	}
	return p.tables(c.Int("top"), filepath.Base(contenders[0].Program))
}

// profiler records while the sample is taken.
type profiler struct {
	*report.Terminal
	ctx    context.Context
	perf   string
	file   string
	window float64
	cmd    *exec.Cmd
	err    error
}

// Sample starts perf, for the time of warming up and window. 1999 samples a
// second don't keep step with the tick.
func (p *profiler) Sample(s *result.Series, name string, round, rounds int) {
	p.Terminal.Sample(s, name, round, rounds)
	p.cmd = exec.CommandContext(p.ctx, p.perf, "record", "-q", "-a", "-g", "-e", "cpu-clock", "-F", "1999", "-o", p.file,
		"--", "sleep", fmt.Sprint(p.window))
	p.cmd.Stderr = os.Stderr
	p.err = p.cmd.Start()
}

// Series waits for perf.
func (p *profiler) Series(s *result.Series) {
	if p.err == nil {
		p.err = p.cmd.Wait()
	}
	p.Terminal.Series(s)
}

// tables prints what perf makes of the samples. The kernel's work for arriving
// packets is charged to whoever was interrupted, so that a balancer's share
// shows in full only in the table of the whole box.
func (p *profiler) tables(top int, program string) error {
	err := errors.Join(
		p.table("By process (swapper is idle time)", top, "--sort", "comm"),
		p.table("The whole box, by place, idle time left out", top, "--sort", "comm,dso,sym", "--percentage", "relative"))
	if program != "." {
		err = errors.Join(err, p.table("Of the time of "+program+" alone", top, "--sort", "dso,sym", "--percentage", "relative", "--comms", program))
	}
	fmt.Printf("\nsamples: %s\n", p.file)
	return err
}

func (p *profiler) table(title string, top int, flags ...string) error {
	args := append([]string{"report", "--stdio", "--no-children", "-g", "none", "-i", p.file, "--percent-limit", "0.2"}, flags...)
	out, err := exec.CommandContext(p.ctx, p.perf, args...).Output()
	if err != nil {
		return fmt.Errorf("perf report: %w", err)
	}
	fmt.Printf("\n%s\n", title)
	n := 0
	for line := range strings.Lines(string(out)) {
		idle := strings.Contains(line, "swapper") && (strings.Contains(line, "halt") || strings.Contains(line, "idle"))
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") || idle || n >= top {
			continue
		}
		fmt.Print(line)
		n++
	}
	return nil
}
