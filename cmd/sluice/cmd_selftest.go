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
		Usage: "try the kernel's hazards for splice and offload, on sockets of its own; leaves nothing",
		Action: func(c *cli.Context) error {
			splice, spliceErr := loader.Selftest(c.Context, zerolog.Nop())
			offload, offloadErr := loader.SelftestOffload(c.Context, zerolog.Nop())
			if err := e.steps("SPLICE", splice); err != nil {
				return err
			}
			if err := e.steps("OFFLOAD", offload); err != nil {
				return err
			}
			if err := e.verdict("offload", "sessions would be spliced or relayed", offload, offloadErr); err != nil {
				return err
			}
			switch {
			case spliceErr != nil:
				return fmt.Errorf("splice is not safe here, sessions would be relayed: %w", spliceErr)
			case !splice.Safe():
				return errors.New("splice is not safe here, sessions would be relayed")
			}
			return e.verdict("splice", "", splice, nil)
		},
	})
}

// steps writes a self-test's table, and an empty line.
func (e env) steps(title string, r loader.Report) error {
	t := tabwriter.NewWriter(e.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "%s\tRESULT\tTOOK\tDETAIL\n", title)
	for _, s := range r.Steps {
		result := "ok"
		if !s.OK {
			result = "FAILED"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", s.Name, result, s.Took.Round(100*time.Microsecond), s.Detail)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(e.stdout)
	return err
}

// verdict writes one line; instead is what happens otherwise.
func (e env) verdict(path, instead string, r loader.Report, failed error) error {
	line := fmt.Sprintf("%s is safe here (tried in: %s)", path, r.Where)
	if failed != nil {
		line = fmt.Sprintf("%s is not to be had here, %s: %v", path, instead, failed)
	}
	_, err := fmt.Fprintln(e.stdout, line)
	return err
}
