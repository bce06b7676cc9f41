// SPDX-License-Identifier: Apache-2.0

// Package demo shows a whole sluice at work over loopback: backends of its
// own, traffic, a live edit through the real file watch, and the access log as
// it is in the file. Needs no configuration and no root.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sluice/service"
)

const (
	limit     = 25 * time.Second // of the whole demonstration
	eachRound = 6                // sessions before the edit, and after
)

// demo is one demonstration under way.
type demo struct {
	ctx      context.Context
	cancel   context.CancelFunc
	out      io.Writer
	dir      string
	backends []*backend
	front    string
	reloaded chan error
	served   map[string]int
	err      error // of writing
}

// Run plays the demonstration and writes it to out. The error says which step
// didn't work. Everything is gone when it returns.
func Run(ctx context.Context, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	dir, err := os.MkdirTemp("", "sluice-demo-")
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer os.RemoveAll(dir)
	d := &demo{ctx: ctx, cancel: cancel, out: out, dir: dir, reloaded: make(chan error, 8), served: map[string]int{}}
	defer d.closeBackends()
	err = d.play()
	switch {
	case d.err != nil:
		err = d.err
	case errors.Is(ctx.Err(), context.Canceled):
		err = errors.New("stopped")
	}
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	return nil
}

// say writes a line. What can't be written ends the demonstration.
func (d *demo) say(format string, args ...any) {
	if _, err := fmt.Fprintf(d.out, format+"\n", args...); err != nil && d.err == nil {
		d.err = err
		d.cancel()
	}
}

func (d *demo) play() error {
	for _, name := range []string{"red", "green"} {
		if err := d.addBackend(name); err != nil {
			return err
		}
	}
	var err error
	if d.front, err = freePort(); err != nil {
		return err
	}
	d.say("1. Two backends are up, and this is the whole configuration:\n")
	if err := d.write(); err != nil {
		return err
	}
	if err := d.show(); err != nil {
		return err
	}
	stop, err := d.start()
	if err != nil {
		return err
	}
	stopped := false
	defer func() {
		if !stopped {
			stop()
		}
	}()
	d.say("2. sluice serves %s. %d sessions, one after the other:\n", d.front, eachRound)
	if err := d.traffic(); err != nil {
		return err
	}
	if err := d.edit(); err != nil {
		return err
	}
	if err := d.traffic(); err != nil {
		return err
	}
	stopped = true
	if err := stop(); err != nil {
		return err
	}
	return d.summary()
}

// edit adds a backend while a session runs, which goes on untouched.
func (d *demo) edit() error {
	long, err := dial(d.ctx, d.front)
	if err != nil {
		return err
	}
	defer long.Close()
	name, err := long.ask("hello")
	if err != nil {
		return err
	}
	d.served[name]++
	if err := d.addBackend("blue"); err != nil {
		return err
	}
	d.say("3. A session stays open on %s while a third backend, blue, is written into the file:\n", name)
	for len(d.reloaded) > 0 {
		<-d.reloaded
	}
	began := time.Now()
	if err := d.write(); err != nil {
		return err
	}
	select {
	case err := <-d.reloaded:
		if err != nil {
			return fmt.Errorf("the edit was refused: %w", err)
		}
	case <-d.ctx.Done():
		return errors.New("the edit was not noticed")
	}
	d.say("   + - %s  # blue", d.backends[2].addr)
	d.say("   in force %s later: no restart, no signal", time.Since(began).Round(100*time.Microsecond))
	if again, err := long.ask("still there?"); err != nil || again != name {
		return fmt.Errorf("the open session was cut by the edit: %q, %w", again, err)
	}
	d.say("   the open session still talks to %s\n", name)
	d.say("4. %d more sessions:\n", eachRound)
	return nil
}

// traffic is sessions one after the other; each backend says its name.
func (d *demo) traffic() error {
	for i := range eachRound {
		c, err := dial(d.ctx, d.front)
		if err != nil {
			return err
		}
		name, err := c.ask("hello")
		c.Close()
		if err != nil {
			return err
		}
		d.served[name]++
		d.say("   session %d -> %s", i+1, name)
	}
	d.say("")
	return nil
}

func (d *demo) logFile() string    { return filepath.Join(d.dir, "access.log") }
func (d *demo) configFile() string { return filepath.Join(d.dir, "backends.yaml") }

// write puts the configuration in place as an editor does, by renaming.
func (d *demo) write() error {
	var b strings.Builder
	fmt.Fprintf(&b, "access_log:\n  path: %s\n  format: proxy\nstats: off\n", d.logFile())
	fmt.Fprintf(&b, "listeners:\n  - name: demo\n    listen: %q\n    backends:\n", d.front)
	for _, be := range d.backends {
		fmt.Fprintf(&b, "      - %s  # %s\n", be.addr, be.name)
	}
	tmp := d.configFile() + ".new"
	if err := os.WriteFile(tmp, []byte(b.String()), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, d.configFile())
}

func (d *demo) show() error {
	data, err := os.ReadFile(d.configFile())
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		d.say("   %s", strings.TrimRight(line, "\n"))
	}
	d.say("")
	return nil
}

// start runs the service; stop ends it and gives its error.
func (d *demo) start() (stop func() error, err error) {
	ctx, cancel := context.WithCancel(d.ctx)
	s := service.New(service.Options{
		ConfigFile: d.configFile(), Version: service.Version(), Unprivileged: true,
		AfterReload: func(err error) {
			select {
			case d.reloaded <- err:
			default:
			}
		},
	})
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, nil) }()
	select {
	case <-s.Ready():
	case err := <-ended:
		cancel()
		if err == nil {
			err = d.ctx.Err() // told to stop before it served
		}
		return nil, err
	}
	return func() error { cancel(); return <-ended }, nil
}

// summary shows the log and who served what.
func (d *demo) summary() error {
	data, err := os.ReadFile(d.logFile())
	if err != nil {
		return err
	}
	d.say("5. The access log, as it is in the file:\n")
	lines := 0
	for line := range strings.Lines(string(data)) {
		lines++
		d.say("   %s", strings.TrimRight(line, "\n"))
	}
	total := 0
	d.say("\nSummary:")
	for _, be := range d.backends {
		total += d.served[be.name]
		d.say("   %-6s %-18s %d sessions", be.name, be.addr, d.served[be.name])
	}
	d.say("   %d sessions, %d access-log lines, 1 live edit, no session cut", total, lines)
	if lines != total {
		return fmt.Errorf("%d sessions left %d lines in the access log", total, lines)
	}
	return nil
}
