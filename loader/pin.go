// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// ErrPinned is matched by the errors of OpenPin and FindPin if a living process has
// the directory.
var ErrPinned = errors.New("a running sluice has it")

// Pin is a directory of a BPF filesystem that keeps the flows of one Forward alive
// while no process has them. Whoever has a Pin has it alone: by a lock of the
// directory, which the kernel drops with the process. It is used by one goroutine
// at a time.
type Pin struct {
	path string
	dir  *os.File
}

// OpenPin takes the directory for this process, and makes it, for its owner alone, if
// it isn't there. Its parent has to be on a BPF filesystem. Close gives it back.
func OpenPin(path string) (*Pin, error) {
	if err := onBPF(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return FindPin(path)
}

// FindPin is OpenPin for a directory that has to be there (fs.ErrNotExist).
func FindPin(path string) (_ *Pin, err error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	p := &Pin{path, dir}
	defer func() {
		if err != nil {
			_ = dir.Close()
		}
	}()
	if err := onBPF(path); err != nil {
		return nil, err
	}
	err = unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("%s: %w", path, ErrPinned)
	}
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	return p, nil
}

// LookAtPin says whether OpenPin would have the directory, as far as that can be told
// without making it.
func LookAtPin(path string) error {
	if err := onBPF(filepath.Dir(path)); err != nil {
		return err
	}
	p, err := FindPin(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return p.dir.Close()
}

// onBPF refuses what isn't a directory of a BPF filesystem.
func onBPF(path string) error {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	if uint32(s.Type) != unix.BPF_FS_MAGIC {
		return fmt.Errorf("%s is on no BPF filesystem (mount -t bpf bpf /sys/fs/bpf makes one)", path)
	}
	return nil
}

// Path is the directory.
func (p *Pin) Path() string { return p.path }

// Close gives the directory back and removes it if nothing is pinned there. What is
// stays, and goes on. Safe on nil and when repeated.
func (p *Pin) Close() error {
	if p == nil || p.dir == nil {
		return nil
	}
	err := os.Remove(p.path)
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	dir := p.dir
	p.dir = nil
	return errors.Join(err, dir.Close())
}

// Used says whether something is pinned there.
func (p *Pin) Used() bool {
	names, err := p.names("")
	return err != nil || len(names) > 0
}

// pinner is what can be pinned: a map, a program, a link.
type pinner interface{ Pin(path string) error }

// file is where a name is pinned. A BPF filesystem takes no name with a dot.
func (p *Pin) file(name string) string { return filepath.Join(p.path, name) }

// next is where what takes a name's place is pinned first.
const next = "_next"

// put pins o under a name, in the place of what has it: that ends, if nobody else
// holds it, only once o is there.
func (p *Pin) put(name string, o pinner) error {
	path := p.file(name)
	if err := p.remove(name + next); err != nil { // of a process that was killed here
		return err
	}
	if err := o.Pin(path + next); err != nil {
		return fmt.Errorf("pinning %s: %w", path, err)
	}
	before := p.link(name)
	defer before.close()
	if err := os.Rename(path+next, path); err != nil {
		return fmt.Errorf("pinning: %w", err)
	}
	before.detach()
	return nil
}

// remove unpins a name. One that isn't there is no error.
func (p *Pin) remove(name string) error {
	l := p.link(name)
	defer l.close()
	l.detach()
	if err := os.Remove(p.file(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("unpinning: %w", err)
	}
	return nil
}

// pinnedLink is a link that is pinned; nil: what is isn't one.
type pinnedLink struct{ link.Link }

// link opens the link of this name.
func (p *Pin) link(name string) *pinnedLink {
	if !strings.HasPrefix(name, ingress.pinPrefix()) && !strings.HasPrefix(name, egress.pinPrefix()) {
		return nil
	}
	l, err := link.LoadPinnedLink(p.file(name), nil)
	if err != nil {
		return nil
	}
	return &pinnedLink{l}
}

// detach takes its program off now: unpinning alone leaves that to a worker of the
// kernel (bpf_link_put). Of a device that is gone there is nothing to take off.
func (l *pinnedLink) detach() {
	if l != nil {
		_ = l.Detach()
	}
}

func (l *pinnedLink) close() {
	if l != nil {
		_ = l.Close()
	}
}

// names lists what is pinned under names that begin so.
func (p *Pin) names(prefix string) ([]string, error) {
	list, err := os.ReadDir(p.path)
	if err != nil {
		return nil, fmt.Errorf("reading what is pinned: %w", err)
	}
	var out []string
	for _, e := range list {
		if strings.HasPrefix(e.Name(), prefix) {
			out = append(out, e.Name())
		}
	}
	slices.Sort(out)
	return out, nil
}

// Clear unpins everything: what no process holds ends with it, and what still comes of
// a flow is the host's stack's, which answers it with a reset. Filters of tc, of kernels
// before 6.6, are looked for in the calling thread's network namespace.
func (p *Pin) Clear() error {
	errs := []error{p.sweepFilters(nil)}
	list, err := p.names("")
	errs = append(errs, err)
	for _, name := range list {
		errs = append(errs, p.remove(name))
	}
	return errors.Join(errs...)
}
