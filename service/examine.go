// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"sluice/config"
	"sluice/loader"
	"sluice/proxy"
	"sluice/stats"
)

// Examine tries what c would need of the host, and undoes it: it binds the
// addresses, and opens the access log if it is there already. ok: some
// listener could serve, and what would keep sluice from starting is not there.
func Examine(c *config.Config) (findings []loader.Finding, ok bool) {
	engine, err := proxy.New(proxy.Options{Loops: 1, Log: zerolog.Nop()})
	if err != nil {
		return []loader.Finding{{Name: "event loops", Why: err.Error()}}, false
	}
	defer engine.Close()
	ok = true
	for _, l := range c.Listeners {
		for _, a := range l.Listen {
			f := loader.Finding{Name: fmt.Sprintf("listener %s, %s", l.Name, a), OK: true, Why: "can be bound"}
			front, err := engine.Bind(a, l.Backlog, l.Keepalive, false)
			if err != nil {
				f.OK, f.Why = false, err.Error()
				f.Fix = bindFix(err)
				ok = false
			} else {
				front.Close()
			}
			findings = append(findings, f)
		}
	}
	if c.AccessLog != nil {
		f := examineLog(c.AccessLog.Path)
		ok = ok && f.OK
		findings = append(findings, f)
	}
	if !c.Stats.Off {
		f := examineStats(c)
		ok = ok && (f.OK || !c.Stats.Explicit)
		findings = append(findings, f)
	}
	return findings, ok
}

func bindFix(err error) string {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return "stop who has it (`ss -ltnp` tells), or choose another address; a sluice that serves this file has it too"
	case errors.Is(err, unix.EACCES):
		return "run as root or grant CAP_NET_BIND_SERVICE, or choose a port above 1023"
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return "give the host this address, or listen on one that it has"
	}
	return ""
}

// examineLog doesn't create the log: it looks whether that could be done.
func examineLog(path string) loader.Finding {
	f := loader.Finding{Name: "access log " + path, OK: true, Why: "can be written"}
	if path == "-" {
		f.Why = "is stdout"
		return f
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|unix.O_NONBLOCK, 0)
	switch {
	case err == nil:
		file.Close()
		return f
	case errors.Is(err, fs.ErrNotExist):
		dir := filepath.Dir(path)
		if err = unix.Access(dir, unix.W_OK|unix.X_OK); err == nil {
			f.Why = "can be created"
			return f
		}
		err = fmt.Errorf("%s: %w", dir, err)
		f.Fix = "create the directory " + dir + " for the user that runs sluice"
	case errors.Is(err, unix.ENXIO):
		f.Fix = "it is a pipe that nobody reads: start its reader first"
	default:
		f.Fix = "give the user that runs sluice the right to write it"
	}
	f.OK, f.Why = false, err.Error()
	return f
}

func examineStats(c *config.Config) loader.Finding {
	f := loader.Finding{Name: "stats " + c.Stats.Address.String(), OK: true, Why: "can be bound"}
	srv, err := stats.NewServer(c.Stats.Address, New(Options{}), zerolog.Nop())
	if err != nil {
		f.OK, f.Why, f.Fix = false, err.Error(), "choose another address as stats, or off"
		if !c.Stats.Explicit {
			f.Why += " (it is only the default: sluice would run without)"
		}
		return f
	}
	srv.Close()
	return f
}
