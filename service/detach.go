// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/rs/zerolog"

	"sluice/accesslog"
	"sluice/config"
	"sluice/internal/rawtcp"
	"sluice/internal/srcports"
	"sluice/loader"
	"sluice/pool"
	"sluice/proxy"
	"sluice/session"
)

// Detached is what Detach has done.
type Detached struct {
	Sessions int    // that were reset, or had ended, and are logged if a log was given
	Unknown  int    // flows that were reset, of which nothing was known
	Dropped  string // why all of them were left to the host's stack to reset; "": they weren't
}

// Detach ends the flows that are pinned at path and removes what is pinned there. With a
// file each of its sessions gets its line in the access log that the file names. A
// process that has the path is an error (loader.ErrPinned), and so is a path where
// nothing is. It needs what serving with it needs.
func Detach(path, file string, log zerolog.Logger) (d Detached, err error) {
	c := &config.Config{}
	if file != "" {
		if c, err = config.ReadFile(file); err != nil {
			return d, err
		}
	}
	pin, err := loader.FindPin(path)
	if errors.Is(err, fs.ErrNotExist) {
		return d, fmt.Errorf("nothing is pinned at %s", path)
	}
	if errors.Is(err, loader.ErrPinned) {
		return d, fmt.Errorf("%w: stop it first", err)
	}
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, pin.Close()) }()
	if !pin.Used() {
		return d, nil
	}
	if d, err = endPinned(pin, c, log); err != nil {
		return d, err
	}
	return d, pin.Clear()
}

// endPinned resets the flows as a service does that takes them over and is then stopped.
func endPinned(pin *loader.Pin, c *config.Config, log zerolog.Logger) (d Detached, err error) {
	raw, err := rawtcp.Open()
	if err != nil {
		return d, err
	}
	forward, err := loader.NewForward(loader.ForwardOptions{Pin: pin})
	if err != nil {
		return d, errors.Join(err, raw.Close())
	}
	ports := srcports.New(nil, time.Now)
	lines, err := accesslog.Open(c.AccessLog, log)
	if err != nil {
		return d, errors.Join(fmt.Errorf("access_log: %w", err), forward.Close(), raw.Close())
	}
	s := New(Options{})
	s.sessions = session.NewRegistry(session.Options{Record: func(r *accesslog.Record, line bool) {
		if line {
			lines.Write(r)
		}
	}})
	s.cfg = c
	o := &proxy.Offload{Forward: forward, Ports: ports, Raw: raw}
	engine, err := proxy.New(proxy.Options{Loops: 1, Log: log, Sessions: s.sessions, Offload: o})
	if err == nil {
		h := &heirs{s: s, settings: map[string]*session.Settings{}, pools: map[string]*poolEntry{}, backends: map[heirKey]*pool.Backend{}}
		s.sessions.Update(func() { d.Sessions, d.Unknown = engine.Adopt(h.of) })
		d.Dropped = forward.Dropped()
		engine.ResetAll()
		err = engine.Close()
	}
	return d, errors.Join(err, lines.Close(), ports.Close(), forward.Close(), raw.Close())
}
