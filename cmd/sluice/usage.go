// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"sluice/config"
	"sluice/service"
)

// tidy finds a command that isn't there before flags are looked at, so that a
// mistyped command isn't reported as a bad flag, and puts a command's flags first.
func tidy(app *cli.App, args []string) ([]string, error) {
	if len(args) < 2 || strings.HasPrefix(args[1], "-") {
		return args, nil
	}
	if args[1] == "help" {
		// `sluice help` and `sluice help run`, as people type them.
		switch {
		case len(args) == 2:
			return []string{args[0], "--help"}, nil
		case len(args) == 3 && app.Command(args[2]) != nil:
			return []string{args[0], args[2], "--help"}, nil
		}
		return nil, unknownCommand(app, args[len(args)-1])
	}
	c := app.Command(args[1])
	if c == nil {
		return nil, unknownCommand(app, args[1])
	}
	return append(args[:2:2], flagsFirst(c, args[2:])...), nil
}

func commandNames(app *cli.App) []string {
	var out []string
	for _, c := range app.Commands {
		out = append(out, c.Name)
	}
	return out
}

func unknownCommand(app *cli.App, name string) error {
	names := commandNames(app)
	if n := nearest(strings.ToLower(strings.TrimLeft(name, "-")), names); n != "" {
		return fmt.Errorf("unknown command %q, did you mean %q?", name, n)
	}
	return fmt.Errorf("unknown command %q, must be one of %s", name, strings.Join(names, ", "))
}

// strayArgument says what the argument was probably meant to be.
func strayArgument(c *cli.Context) error {
	arg := c.Args().First()
	flags := flagNames(c.Command.Flags)
	name := c.Command.Name
	switch {
	case strings.HasPrefix(arg, "-"):
		return flagError(name, flags, arg)
	case slices.Contains(flags, arg):
		return fmt.Errorf("%s: unexpected argument %q, did you mean %q?", name, arg, "--"+arg)
	case slices.Contains(flags, flagConfig):
		return fmt.Errorf("%s: unexpected argument %q, did you mean %q?", name, arg, "-c "+arg)
	}
	return fmt.Errorf("%s: unexpected argument %q, it takes none", name, arg)
}

const undefined = "flag provided but not defined: "

// badValue is how the flag package words a value that can't be parsed.
var badValue = regexp.MustCompile(`(?s)^invalid (?:boolean )?value (".*") for (?:flag )?-([^ :]+): `)

// usageError words what the flag package found.
func usageError(c *cli.Context, err error, _ bool) error {
	name, flags := "sluice", []string(nil)
	if c.Command != nil && c.Command.Name != "" {
		name, flags = c.Command.Name, flagNames(c.Command.Flags)
	}
	msg := err.Error()
	if bad, ok := strings.CutPrefix(msg, undefined); ok {
		if name == "sluice" {
			return topFlagError(c.App, bad)
		}
		return flagError(name, flags, bad)
	}
	if flag, ok := strings.CutPrefix(msg, "flag needs an argument: "); ok {
		return fmt.Errorf("%s: %s needs a value, such as %s", name, dashes(flag), example(flag))
	}
	if m := badValue.FindStringSubmatch(msg); m != nil {
		return fmt.Errorf("%s: %s is %s, must be such as %s", name, dashes(m[2]), m[1], example(m[2]))
	}
	return fmt.Errorf("%s: %s", name, msg)
}

func flagError(name string, flags []string, bad string) error {
	word := strings.TrimLeft(bad, "-")
	bad = dashes(bad)
	if n := nearest(strings.ToLower(word), append(flags, "help")); n != "" {
		return fmt.Errorf("%s: unknown flag %s, did you mean --%s?", name, bad, n)
	}
	if len(flags) == 0 {
		return fmt.Errorf("%s: unknown flag %s, it takes none but --help", name, bad)
	}
	return fmt.Errorf("%s: unknown flag %s, must be one of --%s", name, bad, strings.Join(flags, ", --"))
}

// topFlagError is for a flag before any command: often a command was meant, or
// the flag belongs behind one.
func topFlagError(app *cli.App, bad string) error {
	word := strings.TrimLeft(bad, "-")
	bad = dashes(bad)
	switch word {
	case "v", "version":
		return fmt.Errorf("unknown flag %s, did you mean `sluice version`?", bad)
	case "t":
		return fmt.Errorf("unknown flag %s, did you mean `sluice check`?", bad)
	}
	for _, c := range app.Commands {
		if c.Name == word {
			return fmt.Errorf("unknown flag %s, did you mean `sluice %s`?", bad, word)
		}
	}
	for _, c := range app.Commands {
		if slices.Contains(flagNames(c.Flags), word) || word == "c" && slices.Contains(flagNames(c.Flags), flagConfig) {
			return fmt.Errorf("%s goes behind a command: sluice %s %s", bad, c.Name, bad)
		}
	}
	return fmt.Errorf("unknown flag %s, must be a command first: one of %s", bad, strings.Join(commandNames(app), ", "))
}

func example(flag string) string {
	switch strings.TrimLeft(flag, "-") {
	case flagLimit:
		return "--limit 100"
	case flagSort:
		return "--sort bytes"
	case flagStats:
		return "--stats 127.0.0.1:9585"
	case flagDump, flagJSON, flagResolve, flagStrict:
		return dashes(flag)
	}
	return "-c " + service.DefaultFile
}

func dashes(flag string) string {
	word := strings.TrimLeft(flag, "-")
	if len(word) == 1 {
		return "-" + word
	}
	return "--" + word
}

// flagNames are the long names of a command's own flags.
func flagNames(flags []cli.Flag) []string {
	var out []string
	for _, f := range flags {
		if n := f.Names(); n[0] != "help" {
			out = append(out, n[0])
		}
	}
	return out
}

// nearest is the known word with the fewest edits, "" if none is near.
func nearest(word string, known []string) string {
	best, least := "", 3
	for _, k := range known {
		if len(k) < 2 || len(word) > 40 {
			continue
		}
		if strings.HasPrefix(k, word) && len(word) >= 2 {
			return k
		}
		if d := config.Edits(word, k); d < min(least, len(k)/2+1) {
			best, least = k, d
		}
	}
	return best
}

var errBothFlags = errors.New("-c and --stats are two ways to name the same address, give one")
