// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"sluice/bench/contender"
	"sluice/bench/measure"
	"sluice/bench/report"
	"sluice/bench/result"
)

// quickLimit leaves a run of five minutes time to end.
const quickLimit = 260 * time.Second

func contendersFlag() cli.Flag {
	return &cli.StringFlag{Name: "c", Value: strings.Join(contender.Default(), ","), Usage: "contenders, of " + strings.Join(contender.Names(), ", ")}
}

func sluiceFlag() cli.Flag {
	return &cli.StringFlag{Name: "sluice", Usage: "use this `PROGRAM` instead of building ./cmd/sluice"}
}

func congestionFlag() cli.Flag {
	return &cli.StringFlag{Name: "congestion", Usage: "TCP congestion control of all hosts, by `NAME`; without: cubic, or reno where the machine keeps cubic from namespaces"}
}

func runCommand() *cli.Command {
	return &cli.Command{Name: "run", Usage: "everything, into bench/results and docs/benchmarks.md",
		Flags: []cli.Flag{contendersFlag(), sluiceFlag(), congestionFlag(),
			&cli.IntFlag{Name: "rounds", Value: 5},
			&cli.Float64Flag{Name: "seconds", Value: 3, Usage: "of each sample"},
			&cli.StringFlag{Name: "complete", Usage: "measure only what the result in `FILE` lacks or what failed there, and add it"},
			&cli.DurationFlag{Name: "limit", Usage: "what has not begun by then is left out, with a note"},
			&cli.StringFlag{Name: "w", Usage: "only these workloads, separated by commas"}},
		Action: func(c *cli.Context) error {
			var before *result.Run
			names := measure.WorkloadNames()
			if path := c.String("complete"); path != "" {
				var err error
				if before, err = result.Load(path); err != nil {
					return err
				}
				names = before.Lacks(names)
			}
			if c.String("w") != "" {
				names = strings.Split(c.String("w"), ",")
			}
			list, err := measure.Select(names)
			if err != nil {
				return err
			}
			root, err := sourceRoot()
			if err != nil {
				return err
			}
			plan := measure.Plan{Workloads: list, Rounds: max(c.Int("rounds"), 1)}
			if d := c.Duration("limit"); d > 0 {
				plan.Deadline = time.Now().Add(d)
			}
			run, err := do(c, "full", os.Stdout, plan)
			if err != nil {
				return err
			}
			measuredNow := measured(run)
			if before != nil {
				before.Complete(run, measure.WorkloadNames())
				run = before
			}
			path, err := run.Save(resultsIn(root))
			if err != nil {
				return err
			}
			fmt.Println("\nwritten:", path)
			return errors.Join(writeDocs(root, path), measuredNow)
		}}
}

func quickCommand() *cli.Command {
	return &cli.Command{Name: "quick", Usage: "the main figures in five minutes",
		Flags: []cli.Flag{contendersFlag(), sluiceFlag(), congestionFlag(), &cli.IntFlag{Name: "rounds", Value: 3},
			&cli.Float64Flag{Name: "seconds", Value: .4, Usage: "of each sample"}},
		Action: func(c *cli.Context) error {
			plan := measure.Plan{Workloads: measure.Quick(), Rounds: max(c.Int("rounds"), 1), Short: true, Deadline: time.Now().Add(quickLimit)}
			run, err := do(c, "quick", os.Stdout, plan)
			if err != nil {
				return err
			}
			return measured(run)
		}}
}

func oneCommand() *cli.Command {
	return &cli.Command{Name: "one", Usage: "chosen workloads for chosen contenders",
		Flags: []cli.Flag{contendersFlag(), sluiceFlag(), congestionFlag(),
			&cli.StringFlag{Name: "w", Value: "pingpong-pinned", Usage: "workloads, separated by commas; `bench list` names them"},
			&cli.IntFlag{Name: "rounds", Value: 3},
			&cli.Float64Flag{Name: "seconds", Value: 1, Usage: "of each sample"},
			&cli.IntFlag{Name: "backends", Usage: "their number, instead of the workload's"},
			&cli.BoolFlag{Name: "pinned", Usage: "everything on core 0"},
			&cli.StringFlag{Name: "o", Usage: "write the samples as JSON into this `FOLDER`; -: to the standard output, and all else to the standard error"}},
		Action: func(c *cli.Context) error {
			list, err := measure.Select(strings.Split(c.String("w"), ","))
			if err != nil {
				return err
			}
			out := os.Stdout
			if c.String("o") == "-" {
				out = os.Stderr
			}
			run, err := do(c, "one", out, measure.Plan{Workloads: list, Rounds: max(c.Int("rounds"), 1), Backends: c.Int("backends"), Pinned: c.Bool("pinned")})
			if err != nil {
				return err
			}
			switch dir := c.String("o"); dir {
			case "":
			case "-":
				if err := json.NewEncoder(os.Stdout).Encode(run); err != nil {
					return err
				}
			default:
				if _, err := run.Save(dir); err != nil {
					return err
				}
			}
			return measured(run)
		}}
}

func listCommand() *cli.Command {
	return &cli.Command{Name: "list", Usage: "the workloads", Action: func(*cli.Context) error {
		for _, w := range measure.All() {
			fmt.Printf("%-16s %s\n", w.Name, w.Title)
		}
		return nil
	}}
}

// do finds the contenders that the flags ask for, and runs the plan.
func do(c *cli.Context, mode string, out *os.File, plan measure.Plan) (*result.Run, error) {
	root, err := sourceRoot()
	if err != nil {
		return nil, err
	}
	dir, remove, err := measure.Temp()
	if err != nil {
		return nil, err
	}
	list, err := contender.Find(c.Context, strings.Split(c.String("c"), ","), c.String("sluice"), root, dir)
	if err != nil {
		return nil, errors.Join(err, remove())
	}
	plan.Contenders, plan.Auto, plan.Dir, plan.Congestion = list, contender.Auto(list), dir, c.String("congestion")
	plan.Window = time.Duration(c.Float64("seconds") * float64(time.Second))
	run, err := execute(c.Context, mode, out, plan, root)
	return run, errors.Join(err, remove())
}

// execute runs the plan and prints what it found to out.
func execute(ctx context.Context, mode string, out *os.File, plan measure.Plan, root string) (*result.Run, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("the hosts are network namespaces: run it as root")
	}
	if err := raiseFiles(); err != nil {
		return nil, err
	}
	run := &result.Run{Version: result.Version, Mode: mode, Started: time.Now(), Commit: commit(root), Machine: measure.Machine()}
	for _, c := range plan.Contenders {
		run.Contenders = append(run.Contenders, result.Contender{Name: c.Name, Version: c.Version})
	}
	terminal := report.NewTerminal(out, isTerminal(out))
	report.Machine(out, run)
	plan.Report = terminal
	err := plan.Run(ctx, run)
	run.Seconds = time.Since(run.Started).Seconds()
	if err != nil {
		return nil, err
	}
	fmt.Fprintln(out, "\nTCP congestion control on all hosts:", run.Machine.Congestion)
	for _, note := range run.Notes {
		fmt.Fprintln(out, "note:", note)
	}
	report.SideBySide(out, run)
	report.Goals(out, run.Goals())
	return run, nil
}

// measured is an error when something was not measured; goals don't matter.
func measured(run *result.Run) error {
	failed, all := 0, 0
	for _, s := range run.Series {
		for _, sample := range s.Samples {
			all++
			if sample.Error != "" {
				failed++
			}
		}
	}
	if failed > 0 || all == 0 {
		return fmt.Errorf("%d of %d samples could not be taken; the tables say why", failed, all)
	}
	return nil
}

// raiseFiles lets the load processes have as many descriptors as they may.
func raiseFiles() error {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return err
	}
	lim.Cur = lim.Max
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &lim)
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// sourceRoot is the directory of the module that this is run in.
func sourceRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if text, err := os.ReadFile(filepath.Join(dir, "go.mod")); err == nil && strings.HasPrefix(string(text), "module sluice\n") {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("run it inside sluice's source tree")
		}
		dir = up
	}
}

// commit is what the tree is at, with a plus when it has changes.
func commit(root string) string {
	out, err := exec.Command("git", "-C", root, "describe", "--always", "--dirty=+", "--abbrev=10").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
