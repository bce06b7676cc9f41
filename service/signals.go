// SPDX-License-Identifier: Apache-2.0

package service

import (
	"os"
	"os/signal"
	"syscall"
)

// Signals is what a process is told from outside. os/signal drops what a full
// channel can't take, so each kind has its own, with room for as many as make
// a difference: none can crowd another one out.
type Signals struct {
	end    chan os.Signal // SIGTERM, SIGINT, SIGQUIT; the second one is the last that matters
	reload chan os.Signal // SIGHUP; one that waits stands for all
	reopen chan os.Signal // SIGUSR1; the same
}

// NewSignals makes an empty one; Send and Listen fill it.
func NewSignals() *Signals {
	return &Signals{end: make(chan os.Signal, 2), reload: make(chan os.Signal, 1), reopen: make(chan os.Signal, 1)}
}

// Listen has the process's own signals come in, until Stop.
func (s *Signals) Listen() {
	signal.Notify(s.end, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	signal.Notify(s.reload, syscall.SIGHUP)
	signal.Notify(s.reopen, syscall.SIGUSR1)
}

// Stop ends what Listen began.
func (s *Signals) Stop() {
	for _, c := range []chan os.Signal{s.end, s.reload, s.reopen} {
		signal.Stop(c)
	}
}

// Send is as if the process had got sig. It never waits.
func (s *Signals) Send(sig os.Signal) {
	to := s.end
	switch sig {
	case syscall.SIGHUP:
		to = s.reload
	case syscall.SIGUSR1:
		to = s.reopen
	}
	select {
	case to <- sig:
	default:
	}
}
