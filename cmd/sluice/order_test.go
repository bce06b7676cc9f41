// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

func TestFlagsFirst(t *testing.T) {
	c := &cli.Command{Flags: []cli.Flag{
		&cli.StringFlag{Name: "config", Aliases: []string{"c"}},
		&cli.BoolFlag{Name: "strict"},
	}}
	for args, want := range map[string]string{
		"":                      "",
		"PATH":                  "PATH",
		"PATH -c FILE":          "-c FILE PATH",
		"PATH --strict MORE":    "--strict PATH MORE",
		"PATH -c=FILE --strict": "-c=FILE --strict PATH",
		"--config FILE PATH":    "--config FILE PATH",
		"PATH -c":               "-c PATH",
		"PATH --other X":        "--other PATH X",
		"A -- -c FILE":          "-- A -c FILE",
		"-c FILE -- --strict":   "-c FILE -- --strict",
		"- -c FILE":             "-c FILE -",
	} {
		if got := flagsFirst(c, strings.Fields(args)); !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%q becomes %q, want %q", args, got, want)
		}
	}
}
