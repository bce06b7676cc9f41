// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"

	"sluice/config"
	"sluice/internal/caps"
	"sluice/loader"
)

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

// dispatchable says whether the program in the kernel may pick for a
// listener: a pick at the SYN must not be one that a rule refuses later.
func dispatchable(l *config.Listener, p *config.Pool) bool {
	return p.Balance == config.RoundRobin && !l.ProxyAccept && len(l.Allow) == 0 && len(l.Deny) == 0 &&
		l.MaxConns == 0 && l.MaxConnsPerIP == 0
}

// maxFDs is as many descriptors as are ever reckoned with.
const maxFDs = 1 << 30

// sessionFDs is how many descriptors sessions may have together beside this
// many listening sockets.
func (s *Service) sessionFDs(sockets int) int { return max(s.fds-sockets, 2) }

// checkFDs refuses more listening sockets than leave descriptors for sessions. A
// few are had from those that are kept back, however low the limit.
func (s *Service) checkFDs(sockets int) error {
	if s.fds-sockets >= 2 || sockets <= keptBack/2 {
		return nil
	}
	return fmt.Errorf("%d listening sockets, one for each address, port and event loop, leave no descriptors for sessions: raise LimitNOFILE, or listen on fewer ports", sockets)
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
