// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// startLimit is how long a server may take to listen.
const startLimit = 20 * time.Second

// stopLimit is how long a process may take to end after SIGTERM.
const stopLimit = 3 * time.Second

// Proc is a process on a host.
type Proc struct {
	Cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// Start runs cmd on the host, on the given cores only (nil: all). The kernel
// kills the process when the harness ends.
func (h *Host) Start(cmd *exec.Cmd, cores []int) (*Proc, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL, Setpgid: true}
	err := h.Do(func() error {
		if cores == nil {
			return cmd.Start()
		}
		var all, some unix.CPUSet
		if err := unix.SchedGetaffinity(0, &all); err != nil {
			return err
		}
		for _, c := range cores {
			some.Set(c)
		}
		// The child inherits the mask of the thread that makes it.
		if err := unix.SchedSetaffinity(0, &some); err != nil {
			return err
		}
		return errors.Join(cmd.Start(), unix.SchedSetaffinity(0, &all))
	})
	if err != nil {
		return nil, fmt.Errorf("%s: starting %s: %w", h.Name, cmd.Path, err)
	}
	p := &Proc{Cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	h.procs = append(h.procs, p)
	return p, nil
}

// WaitListening waits until somebody listens on the port, or p ends. It looks
// at the kernel's table: a connection would be a session.
func (h *Host) WaitListening(ctx context.Context, port int, p *Proc) error {
	entry := fmt.Sprintf(":%04X 00000000:0000 0A ", port)
	for deadline := time.Now().Add(startLimit); ; {
		table, err := h.ReadNet("tcp")
		if err != nil || strings.Contains(table, entry) {
			return err
		}
		select {
		case <-p.Done():
			return fmt.Errorf("ended at once: %v", p.Err())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("nobody listens on %s port %d after %s", h.Name, port, startLimit)
		}
	}
}

// Pid is the process's number.
func (p *Proc) Pid() int { return p.Cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Proc) Done() <-chan struct{} { return p.done }

// Err is how it ended, once Done is closed.
func (p *Proc) Err() error { return p.err }

// Signal sends a signal to the process itself, not to its children.
func (p *Proc) Signal(sig os.Signal) error { return p.Cmd.Process.Signal(sig) }

// Stop ends the process: SIGTERM first, SIGKILL to its tree if that doesn't help.
// It may be called again.
func (p *Proc) Stop() error {
	select {
	case <-p.done:
		return nil
	default:
	}
	tree := Tree(p.Pid())
	if err := p.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("ending %s: %w", p.Cmd.Path, err)
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(stopLimit):
	}
	for _, pid := range tree {
		// One that has ended meanwhile is no error.
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	<-p.done
	return nil
}

// Tree lists pid and its descendants.
func Tree(pid int) []int {
	children := map[int][]int{}
	dir, _ := os.ReadDir("/proc")
	for _, e := range dir {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		data, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		// The name, in brackets, may hold blanks.
		text := string(data)
		fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
		if len(fields) < 2 {
			continue
		}
		parent, _ := strconv.Atoi(fields[1])
		children[parent] = append(children[parent], child)
	}
	tree := []int{pid}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i]]...)
	}
	return tree
}
