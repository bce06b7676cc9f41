// SPDX-License-Identifier: Apache-2.0

// Command bench measures sluice beside nginx, HAProxy and a direct connection.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	app := &cli.App{
		Name:            "bench",
		Usage:           "measure sluice beside nginx, HAProxy and a direct connection",
		HideHelpCommand: true,
		Commands: []*cli.Command{
			runCommand(), quickCommand(), oneCommand(), listCommand(), reportCommand(), compareCommand(), profileCommand(), vmCommand(),
			clientCommand(), backendCommand(),
		},
	}
	if err := app.RunContext(ctx, os.Args); err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}
