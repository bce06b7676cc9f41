// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strconv"

	"github.com/mattn/go-isatty"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"sluice/config"
	"sluice/stats"
)

func statsFlags(e env, more ...cli.Flag) []cli.Flag {
	return append([]cli.Flag{
		&cli.BoolFlag{Name: flagJSON, Usage: "print the statistics endpoint's answer as it is"},
		configFlag(e),
		&cli.StringFlag{Name: flagStats, Usage: "the statistics endpoint's `ADDR`, instead of the one in FILE"},
	}, more...)
}

func statusCommand(e env) *cli.Command {
	return command(&cli.Command{
		Name:  "status",
		Usage: "show the listeners, pools and backends of a running sluice",
		Flags: statsFlags(e),
		Action: func(c *cli.Context) error {
			body, err := fetch(c, "/stats")
			if err != nil {
				return err
			}
			if c.Bool(flagJSON) {
				_, err = e.stdout.Write(body)
				return err
			}
			var s stats.Snapshot
			if err := json.Unmarshal(body, &s); err != nil {
				return fmt.Errorf("the answer is not sluice's: %w", err)
			}
			return stats.RenderStatus(e.stdout, &s, terminalWidth(e))
		},
	})
}

func flowsCommand(e env) *cli.Command {
	return command(&cli.Command{
		Name:  "flows",
		Usage: "list the live sessions of a running sluice",
		Flags: statsFlags(e,
			&cli.IntFlag{Name: flagLimit, Value: 1000, Usage: fmt.Sprintf("show `N` sessions at most, 1 to %d", stats.MaxFlows)},
			&cli.StringFlag{Name: flagSort, Value: string(stats.NewestFirst), Usage: "which come first: `new`, bytes, idle or age"},
		),
		Action: func(c *cli.Context) error {
			limit := c.Int(flagLimit)
			if limit < 1 || limit > stats.MaxFlows {
				return fmt.Errorf("flows: --limit is %d, must be from 1 to %d", limit, stats.MaxFlows)
			}
			by := stats.FlowOrder(c.String(flagSort))
			if !by.Valid() {
				return fmt.Errorf("flows: --sort is %q, must be new, bytes, idle or age", by)
			}
			body, err := fetch(c, fmt.Sprintf("/flows?limit=%d&sort=%s", limit, by))
			if err != nil {
				return err
			}
			if c.Bool(flagJSON) {
				_, err = e.stdout.Write(body)
				return err
			}
			var flows []stats.Flow
			if err := json.Unmarshal(body, &flows); err != nil {
				return fmt.Errorf("the answer is not sluice's: %w", err)
			}
			return stats.RenderFlows(e.stdout, flows, terminalWidth(e))
		},
	})
}

// terminalWidth is how many columns stdout has, 0 where it isn't a terminal or
// nobody knows.
func terminalWidth(e env) int {
	f, ok := e.stdout.(*os.File)
	if !ok || !isatty.IsTerminal(f.Fd()) {
		return 0
	}
	if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
		return int(size.Col)
	}
	n, err := strconv.Atoi(e.getenv("COLUMNS"))
	if err != nil {
		return 0
	}
	return max(n, 0)
}

func fetch(c *cli.Context, path string) ([]byte, error) {
	addr, err := statsAddress(c)
	if err != nil {
		return nil, err
	}
	return stats.Fetch(addr, path)
}

// statsAddress is where the endpoint should be: what --stats says, else what
// the file says; without a default file, the default address.
func statsAddress(c *cli.Context) (config.Address, error) {
	if s := c.String(flagStats); c.IsSet(flagStats) {
		if c.IsSet(flagConfig) {
			return config.Address{}, errBothFlags
		}
		a, err := config.ParseTarget(s)
		if err != nil {
			return a, fmt.Errorf("--stats is %q: %w", s, err)
		}
		return a, nil
	}
	file := c.String(flagConfig)
	cfg, err := config.ReadFile(file)
	switch {
	case err == nil && cfg.Stats.Off:
		return config.Address{}, fmt.Errorf("%s says `stats: off`, so there is nobody to ask; name an address with --stats", file)
	case err == nil:
		return cfg.Stats.Address, nil
	case !c.IsSet(flagConfig) && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)):
		return config.Address{Addr: netip.AddrFrom4([4]byte{127, 0, 0, 1}), Port: config.DefaultStatsPort}, nil
	}
	return config.Address{}, err
}
