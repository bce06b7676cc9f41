// SPDX-License-Identifier: Apache-2.0

// Package lab builds the hosts of a measurement: network namespaces of this
// machine, joined by veth pairs, and the processes in them. Everything that it
// makes is undone by Close, and by the kernel if the harness is killed, the
// namespaces' names aside, which the next Lab removes.
package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Host is a network namespace with a thread of its own in it.
type Host struct {
	Name  string // of the namespace, as `ip netns` shows it
	ns    netns.NsHandle
	tasks chan func()
	done  chan struct{}
	procs []*Proc
}

func newHost(name string) (*Host, error) {
	h := &Host{Name: name, ns: netns.None(), tasks: make(chan func()), done: make(chan struct{})}
	ready := make(chan error)
	go h.live(ready)
	if err := <-ready; err != nil {
		return nil, fmt.Errorf("making network namespace %s (this needs root): %w", name, err)
	}
	return h, nil
}

// live keeps its thread in the namespace. The thread ends with the host, and
// with it, or with the whole harness, the processes it started: they ask the
// kernel for that.
func (h *Host) live(ready chan<- error) {
	defer close(h.done)
	runtime.LockOSThread() // and never unlocked: the thread can't be used for anything else
	ns, err := netns.NewNamed(h.Name)
	if err != nil {
		ready <- err
		return
	}
	h.ns = ns
	ready <- nil
	for task := range h.tasks {
		task()
	}
}

// Do runs f on the host's thread.
func (h *Host) Do(f func() error) error {
	result := make(chan error)
	h.tasks <- func() { result <- f() }
	return <-result
}

// netlink runs f with a handle in the namespace.
func (h *Host) netlink(f func(*netlink.Handle) error) error {
	nl, err := netlink.NewHandleAt(h.ns)
	if err != nil {
		return fmt.Errorf("%s: netlink: %w", h.Name, err)
	}
	defer nl.Close()
	if err := f(nl); err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	return nil
}

// Sysctl sets what /proc/sys/net shows in the namespace; key is below that.
func (h *Host) Sysctl(key, value string) error {
	return h.Do(func() error {
		return os.WriteFile(filepath.Join("/proc/sys/net", key), []byte(value), 0)
	})
}

// ReadNet reads a file of /proc/net as the namespace shows it.
func (h *Host) ReadNet(name string) (text string, err error) {
	err = h.Do(func() error {
		data, err := os.ReadFile(filepath.Join("/proc/thread-self/net", name))
		text = string(data)
		return err
	})
	return text, err
}

func (h *Host) close() error {
	var errs []error
	for i := len(h.procs) - 1; i >= 0; i-- {
		errs = append(errs, h.procs[i].Stop())
	}
	close(h.tasks)
	<-h.done
	errs = append(errs, h.ns.Close(), netns.DeleteNamed(h.Name))
	return errors.Join(errs...)
}

// removeStale removes the names that harnesses which are no more have left.
func removeStale() {
	names, _ := filepath.Glob("/run/netns/" + prefix + "*")
	for _, path := range names {
		name := filepath.Base(path)
		pid, _, ok := strings.Cut(strings.TrimPrefix(name, prefix), "-")
		if _, err := os.Stat("/proc/" + pid); ok && os.IsNotExist(err) {
			// It may be gone by now; and a failure only leaves a name.
			_ = netns.DeleteNamed(name)
		}
	}
}
