// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

func reportCommand() *cli.Command {
	return &cli.Command{Name: "report", Usage: "docs/benchmarks.md, its plots and README's table anew, from the last full result or from FILE", ArgsUsage: "[FILE]",
		Action: func(c *cli.Context) error {
			root, err := sourceRoot()
			if err != nil {
				return err
			}
			return writeDocs(root, c.Args().First())
		}}
}

// newest is the last run of a mode: a full one's name is its date alone, that
// of others ends with the mode.
func newest(dir, mode string) (string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return "", err
	}
	files = slices.DeleteFunc(files, func(f string) bool {
		name := strings.TrimSuffix(filepath.Base(f), ".json")
		if mode == "full" {
			return strings.Count(name, "-") != 2
		}
		return !strings.HasSuffix(name, "-"+mode)
	})
	if len(files) == 0 {
		return "", fmt.Errorf("there is no result of mode %s in bench/results yet", mode)
	}
	return slices.Max(files), nil
}
