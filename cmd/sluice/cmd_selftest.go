// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/rs/zerolog"
	"github.com/urfave/cli/v2"

	"sluice/loader"
)

func selftestCommand(e env) *cli.Command {
	return command(&cli.Command{
		Name:  "selftest",
		Usage: "try the kernel's hazards for splice, on sockets of its own; leaves nothing",
		Action: func(c *cli.Context) error {
			report, err := loader.Selftest(c.Context, zerolog.Nop())
			t := tabwriter.NewWriter(e.stdout, 0, 8, 2, ' ', 0)
			fmt.Fprintln(t, "STEP\tRESULT\tTOOK\tDETAIL")
			for _, s := range report.Steps {
				result := "ok"
				if !s.OK {
					result = "FAILED"
				}
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", s.Name, result, s.Took.Round(100*time.Microsecond), s.Detail)
			}
			if e := t.Flush(); e != nil {
				return e
			}
			switch {
			case err != nil:
				return fmt.Errorf("splice is not safe here, sessions would be relayed: %w", err)
			case !report.Safe():
				return errors.New("splice is not safe here, sessions would be relayed")
			}
			_, err = fmt.Fprintf(e.stdout, "\nsplice is safe here (tried in: %s)\n", report.Where)
			return err
		},
	})
}
