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
)

func compareCommand() *cli.Command {
	return &cli.Command{Name: "compare", Usage: "two commits, in alternating rounds, with significance", ArgsUsage: "A B",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "w", Value: "pingpong-pinned,rps64,connrate,bulk1,cpu5000", Usage: "workloads, separated by commas"},
			&cli.StringFlag{Name: "d", Value: "splice,relay", Usage: "datapaths, separated by commas"},
			&cli.IntFlag{Name: "rounds", Value: 8, Usage: "fewer than 4 can't be significant"},
			&cli.Float64Flag{Name: "seconds", Value: 1, Usage: "of each sample"}},
		Action: func(c *cli.Context) error {
			if c.NArg() != 2 {
				return errors.New("compare takes two commits; flags go before them")
			}
			return compare(c, c.Args().Get(0), c.Args().Get(1))
		}}
}

// compare builds both commits in worktrees, so that the tree stays as it is.
func compare(c *cli.Context, a, b string) (err error) {
	list, err := measure.Select(strings.Split(c.String("w"), ","))
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
	contenders, err := contender.Find(c.Context, []string{contender.Direct}, "", root, dir)
	if err != nil {
		return err
	}
	for i, rev := range []string{a, b} {
		program := filepath.Join(dir, fmt.Sprintf("sluice-%d", i))
		if err := buildCommit(c.Context, root, rev, filepath.Join(dir, fmt.Sprintf("tree-%d", i)), program); err != nil {
			return err
		}
		for _, d := range strings.Split(c.String("d"), ",") {
			contenders = append(contenders, contender.Sluice(commitName(d, i), program, d))
		}
	}
	plan := measure.Plan{Workloads: list, Contenders: contenders, Rounds: max(c.Int("rounds"), 1), Dir: dir,
		Window: time.Duration(c.Float64("seconds") * float64(time.Second))}
	run, err := execute(c.Context, "compare", os.Stdout, plan, root)
	if err != nil {
		return err
	}
	fmt.Printf("\nA is %s, B is %s\n", a, b)
	datapaths := strings.Split(c.String("d"), ",")
	slices.Sort(datapaths)
	for _, d := range slices.Compact(datapaths) {
		report.Compare(os.Stdout, run, d, commitName(d, 0), commitName(d, 1))
	}
	return measured(run)
}

func commitName(datapath string, i int) string { return fmt.Sprintf("%s@%c", datapath, 'A'+i) }

// buildCommit leaves no worktree behind.
func buildCommit(ctx context.Context, root, rev, tree, program string) (err error) {
	git := func(args ...string) error {
		// Also after an interrupt the worktree has to go.
		cmd := exec.CommandContext(context.WithoutCancel(ctx), "git", append([]string{"-C", root}, args...)...)
		if text, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, text)
		}
		return nil
	}
	if err := git("worktree", "add", "--detach", tree, rev); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, git("worktree", "remove", "--force", tree)) }()
	if err := contender.Build(ctx, tree, program); err != nil {
		return fmt.Errorf("commit %s: %w", rev, err)
	}
	return nil
}
