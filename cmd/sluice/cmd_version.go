// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"sluice/service"
)

func versionCommand(e env) *cli.Command {
	return command(&cli.Command{
		Name:  "version",
		Usage: "print the versions of sluice, Go and the kernel",
		Action: func(*cli.Context) error {
			_, err := fmt.Fprintf(e.stdout, "sluice %s\ngo %s\nkernel %s\n", service.Version(), service.GoVersion(), service.Kernel())
			return err
		},
	})
}
