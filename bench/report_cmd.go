// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"sluice/bench/report"
	"sluice/bench/result"
)

func reportCommand() *cli.Command {
	return &cli.Command{Name: "report", Usage: "docs/benchmarks.md and its plots anew, from the last full result or from FILE", ArgsUsage: "[FILE]",
		Action: func(c *cli.Context) error {
			root, err := sourceRoot()
			if err != nil {
				return err
			}
			path := c.Args().First()
			if path == "" {
				if path, err = newest(filepath.Join(root, "bench", "results")); err != nil {
					return err
				}
			}
			run, err := result.Load(path)
			if err != nil {
				return err
			}
			if err := report.Docs(run, filepath.Join(root, "docs")); err != nil {
				return err
			}
			fmt.Println("from", path)
			report.Goals(os.Stdout, run.Goals())
			return nil
		}}
}

// newest is the last full run: its name is its date alone.
func newest(dir string) (string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return "", err
	}
	files = slices.DeleteFunc(files, func(f string) bool { return strings.Count(filepath.Base(f), "-") != 2 })
	if len(files) == 0 {
		return "", errors.New("there is no full result in bench/results yet: make bench")
	}
	return slices.Max(files), nil
}
