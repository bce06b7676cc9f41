// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"
	"github.com/urfave/cli/v2"

	"sluice/config"
	"sluice/internal/sdnotify"
	"sluice/service"
)

// sparePs is how many scheduler places there are beyond a place for each event
// loop. With none to spare, Go's monitor takes a loop's place away 20 us into
// an epoll_wait, and the loop has to queue for another when it wakes; with one
// idle it waits 10 ms (retake in runtime/proc.go, Go 1.26).
const sparePs = 2

func runCommand(e env) *cli.Command {
	return command(&cli.Command{
		Name:  "run",
		Usage: "serve in the foreground, until SIGTERM; edits of the file are taken over while it runs",
		Flags: []cli.Flag{configFlag(e)},
		Action: func(c *cli.Context) error {
			signals := service.NewSignals()
			signals.Listen()
			defer signals.Stop()
			// A reader of the log on stdout or stderr that has gone costs
			// lines, not the process.
			signal.Ignore(syscall.SIGPIPE)
			if e.getenv("GOMAXPROCS") == "" {
				defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(sparePs + runtime.NumCPU()))
			}
			s := service.New(service.Options{
				ConfigFile: c.String(flagConfig),
				LogWriter:  logWriter(e.stderr),
				Notify:     sdnotify.New(e.getenv("NOTIFY_SOCKET")),
				Version:    service.Version(),
			})
			err := s.Run(c.Context, signals)
			var bad config.Errors
			if errors.As(err, &bad) {
				return verbatim(e, err)
			}
			return err
		},
	})
}

// logWriter writes sluice's own log: text on a terminal, else JSON.
func logWriter(w io.Writer) zerolog.LevelWriter {
	if f, ok := w.(*os.File); ok && isatty.IsTerminal(f.Fd()) {
		w = zerolog.ConsoleWriter{Out: f, TimeFormat: time.TimeOnly}
	}
	return zerolog.MultiLevelWriter(zerolog.SyncWriter(w))
}
