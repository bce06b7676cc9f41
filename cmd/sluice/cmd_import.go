// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"sluice/importer"
)

func importCommand(e env) *cli.Command {
	return &cli.Command{
		Name:            "import",
		Usage:           "write the backends.yaml that does what an nginx.conf or haproxy.cfg does; stderr has a line for each word that can't be carried over",
		ArgsUsage:       "FILE",
		HideHelpCommand: true,
		OnUsageError:    usageError,
		Flags:           []cli.Flag{&cli.BoolFlag{Name: flagStrict, Usage: "fail, and write nothing, if anything can't be carried over"}},
		Action: func(c *cli.Context) error {
			switch c.NArg() {
			case 0:
				return errors.New("import: which file? An nginx.conf or haproxy.cfg, such as /etc/nginx/nginx.conf")
			case 1:
				return actionImport(e, c.Args().First(), c.Bool(flagStrict))
			}
			return fmt.Errorf("import: unexpected argument %q, it takes one file", c.Args().Get(1))
		},
	}
}

// actionImport writes the notes, and the file unless there is none, or strict
// forbids it: a file that is there looks as if it were good.
func actionImport(e env, file string, strict bool) error {
	r, err := importer.File(file)
	for _, n := range r.Notes {
		fmt.Fprintln(e.stderr, n)
	}
	var bad *importer.Error
	switch {
	case errors.As(err, &bad):
		return verbatim(e, bad)
	case err != nil:
		return fmt.Errorf("import: %w", err)
	case strict && len(r.Notes) > 0:
		return silentError{errors.New("not everything can be carried over")}
	}
	_, err = e.stdout.Write(r.YAML)
	return err
}
