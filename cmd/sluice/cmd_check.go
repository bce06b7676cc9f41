// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"

	"github.com/urfave/cli/v2"

	"sluice/config"
)

func checkCommand(e env) *cli.Command {
	return command(&cli.Command{
		Name:  "check",
		Usage: "validate a configuration, and warn of what is surely not meant; touches nothing, needs no root",
		Flags: []cli.Flag{
			configFlag(e),
			&cli.BoolFlag{Name: flagDump, Usage: "print the configuration with every default filled in"},
			&cli.BoolFlag{Name: flagResolve, Usage: "also look up the names, and warn of those that don't resolve now"},
		},
		Action: func(c *cli.Context) error {
			return actionCheck(c.Context, e, c.String(flagConfig), c.Bool(flagDump), c.Bool(flagResolve))
		},
	})
}

func actionCheck(ctx context.Context, e env, file string, dump, resolve bool) error {
	cfg, warnings, err := config.CheckFile(file)
	if err != nil {
		return verbatim(e, err)
	}
	if resolve {
		warnings = append(warnings, unresolved(ctx, cfg, net.DefaultResolver.LookupNetIP)...)
		slices.SortStableFunc(warnings, func(a, b config.Warning) int {
			return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
		})
	}
	for _, w := range warnings {
		if _, err := fmt.Fprintln(e.stderr, w); err != nil {
			return err
		}
	}
	if dump {
		_, err = e.stdout.Write(cfg.Dump())
	} else {
		_, err = fmt.Fprintf(e.stdout, "%s: configuration is valid\n", file)
	}
	return err
}
