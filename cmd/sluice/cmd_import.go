// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"sluice/importer"
)

func importCommand(e env) *cli.Command {
	c := command(&cli.Command{
		Name:      "import",
		Usage:     "write the backends.yaml that does what an nginx.conf or haproxy.cfg does; stderr has a line for each word that can't be carried over",
		ArgsUsage: "FILE",
		Flags:     []cli.Flag{&cli.BoolFlag{Name: flagStrict, Usage: "fail, and write nothing, if anything can't be carried over"}},
	})
	c.Action = func(ctx *cli.Context) error {
		switch ctx.NArg() {
		case 0:
			return errors.New("import: which file? sluice import /etc/nginx/nginx.conf, or a haproxy.cfg")
		case 1:
			return actionImport(e, ctx.Args().First(), ctx.Bool(flagStrict))
		}
		return afterFile(ctx)
	}
	return c
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
