// SPDX-License-Identifier: Apache-2.0

// Command sluice balances connections. See docs/ and `sluice help`.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"sluice/service"
)

func main() { os.Exit(run(os.Args, os.Stdin, os.Stdout, os.Stderr)) }

// Flag names.
const (
	flagConfig  = "config"
	flagDump    = "dump"
	flagResolve = "resolve"
	flagJSON    = "json"
	flagLimit   = "limit"
	flagSort    = "sort"
	flagStats   = "stats"
	flagStrict  = "strict"
)

// env is what a command touches of the outside.
type env struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	defaultConfig  string
}

// run is sluice with these arguments, the program's name first. It returns the
// exit code: every failure is 1.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return runIn(env{stdin: stdin, stdout: stdout, stderr: stderr, getenv: os.Getenv, defaultConfig: service.DefaultFile}, args)
}

func runIn(e env, args []string) int {
	app := newApp(e)
	args, err := tidy(app, args)
	if err == nil {
		err = app.Run(args)
	}
	if err == nil {
		return 0
	}
	var s silentError
	if !errors.As(err, &s) {
		fmt.Fprintln(e.stderr, "sluice: "+err.Error())
	}
	return 1
}

// silentError is a failure that has been told already.
type silentError struct{ error }

// verbatim tells err as it is, a line each, without a prefix: what `check`
// finds begins with the file's name, for editors and people alike.
func verbatim(e env, err error) error {
	fmt.Fprintln(e.stderr, strings.TrimRight(err.Error(), "\n"))
	return silentError{err}
}

// newApp is the whole command line, as a value.
func newApp(e env) *cli.App {
	return &cli.App{
		Name:            "sluice",
		Usage:           "a connection balancer whose backends.yaml is live",
		UsageText:       "sluice COMMAND [flags]",
		HideVersion:     true,
		HideHelpCommand: true,
		Reader:          e.stdin,
		Writer:          e.stdout,
		ErrWriter:       e.stderr,
		ExitErrHandler:  func(*cli.Context, error) {},
		OnUsageError:    usageError,
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return errors.New("which command? one of: " + strings.Join(commandNames(c.App), ", ") + " (`sluice --help` explains them)")
			}
			return unknownCommand(c.App, c.Args().First())
		},
		Commands: []*cli.Command{
			runCommand(e), checkCommand(e), doctorCommand(e), selftestCommand(e),
			statusCommand(e), flowsCommand(e), detachCommand(e), importCommand(e), demoCommand(e), versionCommand(e),
		},
	}
}

// command fills in what all commands share.
func command(c *cli.Command) *cli.Command {
	act := c.Action
	c.HideHelpCommand = true
	c.OnUsageError = usageError
	c.Action = func(ctx *cli.Context) error {
		if ctx.NArg() > 0 {
			return strayArgument(ctx)
		}
		return act(ctx)
	}
	return c
}

func configFlag(e env) cli.Flag {
	return &cli.StringFlag{Name: flagConfig, Aliases: []string{"c"}, Value: e.defaultConfig, Usage: "the configuration `FILE`"}
}
