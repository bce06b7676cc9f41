// SPDX-License-Identifier: Apache-2.0

// Package contender starts those that are measured: nginx, HAProxy, the
// kernel's own NAT and IPVS, sluice in its variants, and nobody, for the direct way.
package contender

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"sluice/bench/lab"
	"sluice/bench/load"
	"sluice/bench/peers"
)

// outputFile is what an instance writes on its standard output and error.
const outputFile = "output.log"

// Contender is one way from client to backend.
type Contender struct {
	Name     string
	Program  string // path; empty for the direct way
	Version  string
	template string
	config   string // file name of the configuration
	args     func(config string) []string
	Log      bool // an access log tells when its sessions were handed over
	datapath string
	ownPorts bool // toward the backends, besides those of its host
	module   string
	update   func(*Instance, context.Context, []netip.Addr) error
	apply    func(*Instance, context.Context) error // of rules in the kernel: there is no process
}

// Setup is what an instance is started for.
type Setup struct {
	Host     *lab.Host
	Dir      string // of the instance: files and sockets
	Front    netip.Addr
	Backends []netip.Addr
	Cores    []int           // nil: all
	Further  []peers.Service // balanced besides those of load; without Backends
}

// Instance is a running contender.
type Instance struct {
	*Contender
	Setup
	proc      *lab.Proc
	flowtable bool // of nft: the kernel has them
}

// Direct reports whether there is no balancer.
func (c *Contender) Direct() bool { return c.Program == "" }

// Start starts the contender and waits until it listens on all its ports.
func (c *Contender) Start(ctx context.Context, s Setup) (*Instance, error) {
	in := &Instance{Contender: c, Setup: s}
	if c.Direct() {
		return in, nil
	}
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return nil, err
	}
	if err := in.write(s.Backends); err != nil {
		return nil, fmt.Errorf("%s: %w", c.Name, err)
	}
	if c.apply != nil {
		if err := errors.Join(s.Host.Sysctl("ipv4/ip_forward", "1"), c.apply(in, ctx)); err != nil {
			return nil, fmt.Errorf("%s: %w", c.Name, err)
		}
		return in, nil
	}
	if c.ownPorts {
		if err := s.Host.Sysctl("ipv4/ip_local_port_range", hostPorts); err != nil {
			return nil, fmt.Errorf("%s: %w", c.Name, err)
		}
	}
	output, err := os.Create(filepath.Join(s.Dir, outputFile))
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(c.Program, c.args(in.configPath())...)
	cmd.Stdout, cmd.Stderr = output, output
	proc, err := s.Host.Start(cmd, s.Cores)
	if err = errors.Join(err, output.Close()); err != nil {
		return nil, fmt.Errorf("%s: %w", c.Name, err)
	}
	in.proc = proc
	if err := in.waitListening(ctx); err != nil {
		err = errors.Join(err, in.Stop())
		return nil, fmt.Errorf("%s: %w; it said: %s", c.Name, err, in.tail())
	}
	return in, nil
}

func (in *Instance) write(backends []netip.Addr) error {
	workers := len(in.Cores)
	if in.Cores == nil {
		workers = runtime.NumCPU()
	}
	v := peers.Values{Dir: in.Dir, Workers: workers, Front: in.Front, Datapath: in.datapath, Module: in.module, MaxConns: 9400, Flowtable: in.flowtable}
	if in.Log {
		v.Log = in.logPath()
	}
	for _, s := range in.services() {
		for i, addr := range backends {
			s.Backends = append(s.Backends, peers.Backend{Name: fmt.Sprintf("s%d", i), Addr: netip.AddrPortFrom(addr, uint16(s.Port))})
		}
		v.Services = append(v.Services, s)
	}
	return peers.Write(in.template, in.configPath(), v)
}

func (in *Instance) configPath() string { return filepath.Join(in.Dir, in.config) }

func (in *Instance) services() []peers.Service {
	return append([]peers.Service{
		{Name: "echo", Port: load.EchoPort},
		{Name: "source", Port: load.SourcePort, Stream: true},
		{Name: "sink", Port: load.SinkPort, Stream: true},
		{Name: "stall", Port: load.StallPort},
	}, in.Further...)
}

func (in *Instance) waitListening(ctx context.Context) error {
	for _, s := range in.services() {
		if err := in.Host.WaitListening(ctx, s.Port, in.proc); err != nil {
			return err
		}
	}
	return nil
}

func (in *Instance) tail() string {
	data, err := os.ReadFile(filepath.Join(in.Dir, outputFile))
	if err != nil {
		return err.Error()
	}
	text := strings.TrimSpace(string(data))
	if len(text) > 1000 {
		text = "..." + text[len(text)-1000:]
	}
	return text
}

// HasProcess reports whether there is a process, with memory of its own.
func (in *Instance) HasProcess() bool { return in.proc != nil }

// Pids are the processes of the contender.
func (in *Instance) Pids() []int {
	if in.proc == nil {
		return nil
	}
	return lab.Tree(in.proc.Pid())
}

// Alive is an error when the contender has ended by itself.
func (in *Instance) Alive() error {
	if in.proc == nil {
		return nil
	}
	select {
	case <-in.proc.Done():
		return fmt.Errorf("%s ended during the measurement: %v; it said: %s", in.Name, in.proc.Err(), in.tail())
	default:
		return nil
	}
}

// Targets are the addresses a client connects to for a service.
func (in *Instance) Targets(port int) []netip.AddrPort {
	if !in.Direct() {
		return []netip.AddrPort{netip.AddrPortFrom(in.Front, uint16(port))}
	}
	targets := make([]netip.AddrPort, len(in.Backends))
	for i, addr := range in.Backends {
		targets[i] = netip.AddrPortFrom(addr, uint16(port))
	}
	return targets
}

// Update makes the given backends the ones in use, in the contender's own way
// of doing that without a restart, and returns when it says that this is done.
func (in *Instance) Update(ctx context.Context, backends []netip.Addr) error {
	if in.update == nil {
		return nil
	}
	return in.update(in, ctx, backends)
}

// Stop ends it.
func (in *Instance) Stop() error {
	if in.proc == nil {
		return nil
	}
	return in.proc.Stop()
}

// WriteConfig writes the configuration for n backends, to be looked at.
func (c *Contender) WriteConfig(path string, n int) error {
	local := *c
	local.config = filepath.Base(path)
	in := &Instance{Contender: &local, Setup: Setup{Dir: filepath.Dir(path), Front: lab.FrontAddr(1)}}
	return in.write(lab.BackendAddrs(n))
}
