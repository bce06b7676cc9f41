// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"sluice/config"
)

func checkCommand(e env) *cli.Command {
	return command(&cli.Command{
		Name:  "check",
		Usage: "validate a configuration; touches nothing, needs no root",
		Flags: []cli.Flag{
			configFlag(e),
			&cli.BoolFlag{Name: flagDump, Usage: "print the configuration with every default filled in"},
		},
		Action: func(c *cli.Context) error { return actionCheck(e, c.String(flagConfig), c.Bool(flagDump)) },
	})
}

func actionCheck(e env, file string, dump bool) error {
	cfg, err := config.ReadFile(file)
	if err != nil {
		return verbatim(e, err)
	}
	if dump {
		_, err = e.stdout.Write(cfg.Dump())
	} else {
		_, err = fmt.Fprintf(e.stdout, "%s: configuration is valid\n", file)
	}
	return err
}
