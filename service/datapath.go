// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"runtime"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"

	"sluice/config"
	"sluice/internal/caps"
	"sluice/loader"
)

// noNAT is why nothing is better than splice.
const noNAT = "nat is not there yet"

// loadBPF loads what the kernel and the privileges allow. What it can't is a
// reason for a lower rung and one warning, never a failure.
func (s *Service) loadBPF(ctx context.Context, fds uint64) {
	if s.opts.Unprivileged {
		s.noSplice, s.noDispatch = "running without privileges", "running without privileges"
		return
	}
	var dispatchErr, spliceErr error
	if s.dispatch, dispatchErr = loader.NewDispatch(s.log); dispatchErr != nil {
		s.dispatch, s.noDispatch = nil, dispatchErr.Error()
	}
	if s.splice, spliceErr = s.loadSplice(ctx, fds); spliceErr != nil {
		s.splice, s.noSplice = nil, spliceErr.Error()
	}
	if dispatchErr == nil && spliceErr == nil {
		return
	}
	ev := s.log.Warn()
	if missing := caps.Missing(cap.BPF, cap.NET_ADMIN, cap.PERFMON); len(missing) > 0 &&
		(errors.Is(dispatchErr, loader.ErrNotPermitted) || errors.Is(spliceErr, loader.ErrNotPermitted)) {
		ev = ev.Strs("missing", missing)
	}
	if dispatchErr != nil {
		ev = ev.Str("dispatch", s.noDispatch)
	}
	if spliceErr != nil {
		ev = ev.Str("splice", s.noSplice)
		ev.Msg("sessions are relayed: what the kernel could do for them can't be had")
		return
	}
	ev.Msg("picks are made at accept: dispatch can't be had")
}

// loadSplice runs the self-test and then loads the program that serves.
// Its tables are as large as the descriptors allow, and no larger: they are
// memory whether used or not.
func (s *Service) loadSplice(ctx context.Context, fds uint64) (*loader.Splice, error) {
	if _, err := loader.Selftest(ctx, s.log); err != nil {
		return nil, err
	}
	return loader.NewSplice(loader.SpliceOptions{MaxFlows: int(min(max(fds/2, 1), loader.DefaultFlows))})
}

// rung is the best datapath that a listener's sessions may use, and why there
// is no better one.
func (s *Service) rung(l *config.Listener) (config.Datapath, string) {
	switch {
	case l.Datapath == config.Relay:
		return config.Relay, "the file says relay"
	case s.splice == nil:
		return config.Relay, s.noSplice
	case unixOnly(l.Listen):
		return config.Relay, "unix sockets can't enter a sockmap"
	case l.Datapath == config.Splice:
		return config.Splice, "the file says splice"
	}
	return config.Splice, noNAT
}

func unixOnly(list []config.Address) bool {
	for _, a := range list {
		if a.Path == "" {
			return false
		}
	}
	return true
}

// dispatchable says whether the program in the kernel may pick for a
// listener: a pick at the SYN must not be one that a rule refuses later.
func dispatchable(l *config.Listener, p *config.Pool) bool {
	return p.Balance == config.RoundRobin && !l.ProxyAccept && len(l.Allow) == 0 && len(l.Deny) == 0 &&
		l.MaxConns == 0 && l.MaxConnsPerIP == 0
}

// sessionFDs is how many descriptors sessions may have together.
func sessionFDs(limit uint64, c *config.Config, loops int) int {
	if limit > 1<<30 {
		limit = 1 << 30
	}
	sockets := 0
	for _, l := range c.Listeners {
		sockets += len(l.Listen) * loops
	}
	left := int(limit) - keptBack - openFDs() - sockets
	return max(left, 2)
}

// cpus is how many CPUs the process may run on.
func cpus() int {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) == nil && set.Count() > 0 {
		return set.Count()
	}
	return runtime.NumCPU()
}

// openFDs counts the descriptors that are open now.
func openFDs() int {
	fd, err := unix.Open("/proc/self/fd", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 32
	}
	defer unix.Close(fd)
	n, buf := 0, make([]byte, 8192)
	for {
		k, err := unix.Getdents(fd, buf)
		if err != nil || k <= 0 {
			return n
		}
		_, c, _ := unix.ParseDirent(buf[:k], -1, nil)
		n += c
	}
}
