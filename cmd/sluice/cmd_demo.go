// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"sluice/demo"
)

func demoCommand(e env) *cli.Command {
	return command(&cli.Command{
		Name:  "demo",
		Usage: "see it balance, edit and log over loopback; needs no configuration and no root",
		Action: func(c *cli.Context) error {
			// Whoever stops it, or its reader that has gone (a SIGPIPE, without
			// which the write fails just the same), leaves nothing behind.
			ctx, stop := signal.NotifyContext(c.Context, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
			defer stop()
			err := demo.Run(ctx, e.stdout)
			if errors.Is(err, syscall.EPIPE) {
				return silentError{err}
			}
			return err
		},
	})
}
