// SPDX-License-Identifier: Apache-2.0

// Package measure runs workloads over contenders in alternating rounds.
package measure

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"

	"sluice/bench/contender"
	"sluice/bench/lab"
	"sluice/bench/load"
)

// BedKind is what a set of started contenders looks like.
type BedKind struct {
	Pinned   bool // every process on core 0
	Backends int
	WAN      bool // a slow and lossy link on the client's side
	Tools    bool // with the servers of other load tools
	Auto     bool // with sluice's choice of a datapath too, where it may differ from the ones it chooses from

	Congestion string // TCP's congestion control; empty: the usual one
}

// Bed is a lab with the contenders and the backend running in it.
type Bed struct {
	Kind    BedKind
	lab     *lab.Lab
	dir     string
	backend *backend
	Entries []*Entry
	netem   bool    // the kernel makes the slow link
	short   bool    // only what the goals need
	noise   float64 // cores busy while nothing is measured
}

// Entry is one contender on its balancer host.
type Entry struct {
	*contender.Instance
	bed  *Bed
	host *lab.Host
	dir  string
}

// NewBed starts everything. The first balancer host routes, and belongs to the direct way.
func NewBed(ctx context.Context, kind BedKind, list []*contender.Contender, dir string) (*Bed, error) {
	b := &Bed{Kind: kind, dir: dir}
	if err := b.start(ctx, list); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

func (b *Bed) start(ctx context.Context, list []*contender.Contender) error {
	var err error
	congestion := b.Kind.Congestion
	if b.Kind.WAN && congestion == "" {
		congestion = lab.LossyLink
	}
	if b.lab, err = lab.New(len(list)+1, congestion); err != nil {
		return err
	}
	if b.backend, err = startBackend(b.lab.Backend, b.cores()); err != nil {
		return err
	}
	if b.Kind.Tools {
		if err := b.startTools(ctx); err != nil {
			return err
		}
	}
	for i, c := range list {
		place := i + 1
		if c.Direct() {
			place = 0
		}
		e := &Entry{bed: b, host: b.lab.Balancers[place], dir: filepath.Join(b.dir, c.Name)}
		if b.Kind.WAN {
			if b.netem, err = b.lab.WAN(place, wanRTT, wanLoss); err != nil {
				return fmt.Errorf("a slow and lossy link: %w", err)
			}
		}
		if e.Instance, err = c.Start(ctx, e.setup(place)); err != nil {
			return err
		}
		b.Entries = append(b.Entries, e)
	}
	b.noise = idleBusy()
	return nil
}

func (e *Entry) setup(place int) contender.Setup {
	s := contender.Setup{Host: e.host, Dir: e.dir, Front: lab.FrontAddr(place),
		Backends: lab.BackendAddrs(e.bed.Kind.Backends), Cores: e.bed.cores()}
	if e.bed.Kind.Tools {
		s.Further = toolServices()
	}
	return s
}

// restart gives the contender a fresh process.
func (e *Entry) restart(ctx context.Context) error {
	s := e.Setup
	if err := e.Stop(); err != nil {
		return err
	}
	in, err := e.Contender.Start(ctx, s)
	if err != nil {
		return err
	}
	e.Instance = in
	return nil
}

func (b *Bed) cores() []int {
	if b.Kind.Pinned {
		return []int{0}
	}
	return nil
}

func (b *Bed) threads() int {
	if b.Kind.Pinned {
		return 1
	}
	return runtime.NumCPU()
}

// Close ends all processes and removes the lab.
func (b *Bed) Close() error {
	if b.lab == nil {
		return nil
	}
	return b.lab.Close()
}

// self is the command that runs this program as a load process.
func self(args ...string) (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = append(slices.Clone(os.Environ()), load.Env()...)
	cmd.Stderr = os.Stderr
	return cmd, nil
}

// backend is the backend process.
type backend struct {
	in  io.WriteCloser
	out *bufio.Reader
}

func startBackend(h *lab.Host, cores []int) (*backend, error) {
	threads := runtime.NumCPU()
	if cores != nil {
		threads = len(cores)
	}
	cmd, err := self("load-backend", fmt.Sprint(threads))
	if err != nil {
		return nil, err
	}
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	if _, err := h.Start(cmd, cores); err != nil {
		return nil, err
	}
	b := &backend{in: in, out: bufio.NewReader(out)}
	if line, err := b.out.ReadString('\n'); err != nil || line != "ready\n" {
		return nil, fmt.Errorf("the backend process did not start: it said %q: %w", line, err)
	}
	return b, nil
}

func (b *backend) stats() (s load.BackendStats, err error) {
	if _, err = fmt.Fprintln(b.in, "stats"); err != nil {
		return s, fmt.Errorf("backend process: %w", err)
	}
	line, err := b.out.ReadBytes('\n')
	if err != nil {
		return s, fmt.Errorf("backend process: %w", err)
	}
	return s, json.Unmarshal(line, &s)
}

// client is a client process under way.
type client struct {
	proc *lab.Proc
	in   io.WriteCloser
	out  *bufio.Scanner
}

func (b *Bed) startClient(spec load.Spec) (*client, error) {
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	cmd, err := self("load-client", string(text))
	if err != nil {
		return nil, err
	}
	in, err1 := cmd.StdinPipe()
	read, write, err2 := os.Pipe()
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	// A pipe of our own: that of exec is closed as soon as the process is waited for.
	cmd.Stdout = write
	proc, err := b.lab.Client.Start(cmd, b.cores())
	if err = errors.Join(err, write.Close()); err != nil {
		return nil, err
	}
	return &client{proc: proc, in: in, out: bufio.NewScanner(read)}, nil
}

// next is the next event; after the result there is none.
func (c *client) next(ctx context.Context) (load.Event, error) {
	var ev load.Event
	if !c.out.Scan() {
		return ev, errors.Join(ctx.Err(), errors.New("the client process ended without a result"))
	}
	if err := json.Unmarshal(c.out.Bytes(), &ev); err != nil {
		return ev, fmt.Errorf("client process: %w", err)
	}
	if ev.Result != nil && ev.Result.Fatal != "" {
		return ev, errors.New(ev.Result.Fatal)
	}
	return ev, nil
}

// result waits for the client's result; at is called with each event before.
func (c *client) result(ctx context.Context, at func(load.Event) error) (*load.Result, error) {
	stop := context.AfterFunc(ctx, func() { _ = c.proc.Stop() })
	defer stop()
	for {
		ev, err := c.next(ctx)
		if err != nil {
			return nil, errors.Join(err, c.proc.Stop())
		}
		if ev.Result != nil {
			<-c.proc.Done()
			return ev.Result, nil
		}
		if at == nil {
			continue
		}
		if err := at(ev); err != nil {
			return nil, errors.Join(err, c.proc.Stop())
		}
	}
}
