// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"github.com/rs/zerolog"
	"github.com/urfave/cli/v2"

	"sluice/service"
)

func detachCommand(e env) *cli.Command {
	return &cli.Command{
		Name:            "detach",
		Usage:           "reset the sessions that a stopped sluice has left pinned at PATH, and remove them",
		ArgsUsage:       "PATH",
		HideHelpCommand: true,
		OnUsageError:    usageError,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: flagConfig, Aliases: []string{"c"}, Usage: "write the sessions' lines into the access log of this configuration `FILE`"},
		},
		Action: func(c *cli.Context) error {
			switch c.NArg() {
			case 0:
				return errors.New("detach: which path? The one that forward.pin names, such as /sys/fs/bpf/sluice")
			case 1:
			default:
				return fmt.Errorf("detach: unexpected argument %q, it takes one path", c.Args().Get(1))
			}
			path := c.Args().First()
			d, err := service.Detach(path, c.String(flagConfig), zerolog.Nop())
			if err != nil {
				return fmt.Errorf("detach: %w", err)
			}
			fmt.Fprintf(e.stdout, "%s: %d sessions reset, what was pinned is removed\n", path, d.Sessions+d.Unknown)
			if d.Unknown > 0 {
				fmt.Fprintf(e.stdout, "%d of them have no line: too little was known of them\n", d.Unknown)
			}
			if d.Dropped != "" {
				fmt.Fprintf(e.stdout, "the host resets the sessions that were there: %s\n", d.Dropped)
			}
			return nil
		},
	}
}
