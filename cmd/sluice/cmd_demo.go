// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/urfave/cli/v2"

	"sluice/internal/demo"
)

func demoCommand(e env) *cli.Command {
	return command(&cli.Command{
		Name:   "demo",
		Usage:  "see it balance, edit and log over loopback; needs no configuration and no root",
		Action: func(c *cli.Context) error { return demo.Run(c.Context, e.stdout) },
	})
}
