// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"

	"github.com/urfave/cli/v2"

	"sluice/bench/load"
)

// clientCommand is what the harness starts on the client's host.
func clientCommand() *cli.Command {
	return &cli.Command{Name: "load-client", Hidden: true, Action: func(c *cli.Context) error {
		var spec load.Spec
		if err := json.Unmarshal([]byte(c.Args().First()), &spec); err != nil {
			return fmt.Errorf("load-client: its argument: %w", err)
		}
		return load.RunClient(spec, os.Stdin, os.Stdout)
	}}
}

// backendCommand is what the harness starts on the backends' host.
func backendCommand() *cli.Command {
	return &cli.Command{Name: "load-backend", Hidden: true, Action: func(c *cli.Context) error {
		threads, err := strconv.Atoi(c.Args().First())
		if err != nil {
			return fmt.Errorf("load-backend: its argument: %w", err)
		}
		return load.ServeBackend(threads, os.Stdin, os.Stdout)
	}}
}
