// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"sluice/config"
	"sluice/loader"
	"sluice/service"
)

func doctorCommand(e env) *cli.Command {
	return command(&cli.Command{
		Name:  "doctor",
		Usage: "say which datapaths this host allows and why not the others; with a file, whether it could be served",
		Flags: []cli.Flag{&cli.StringFlag{Name: flagConfig, Aliases: []string{"c"}, Usage: "also judge the addresses, ports, log, names and backends of `FILE`"}},
		Action: func(c *cli.Context) error {
			for _, f := range loader.Probe() {
				if err := tell(e, f); err != nil {
					return err
				}
			}
			if !c.IsSet(flagConfig) {
				return nil // relay always works
			}
			cfg, err := config.ReadFile(c.String(flagConfig))
			if err != nil {
				return verbatim(e, err)
			}
			findings, ok := service.Examine(c.Context, cfg, c.String(flagConfig), nil)
			for _, f := range findings {
				if err := tell(e, f); err != nil {
					return err
				}
			}
			if !ok {
				return silentError{errors.New("no listener could serve")}
			}
			return nil
		},
	})
}

// tell writes a finding as one line.
func tell(e env, f loader.Finding) error {
	word := "yes"
	if !f.OK {
		word = "no"
	}
	line := fmt.Sprintf("%s: %s, %s", f.Name, word, f.Why)
	if f.Fix != "" {
		line += "; fix: " + f.Fix
	}
	_, err := fmt.Fprintln(e.stdout, line)
	return err
}
