// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/urfave/cli/v2"

func reportCommand() *cli.Command  { return &cli.Command{Name: "report"} }
func compareCommand() *cli.Command { return &cli.Command{Name: "compare"} }
func profileCommand() *cli.Command { return &cli.Command{Name: "profile"} }
