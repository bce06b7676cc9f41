// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Cache is the folder where kernels, apt's lists and the answer about KVM are kept.
type Cache struct{ dir string }

// OpenCache makes the cache folder: $SLUICE_VM_CACHE, else sluice-vm in the
// user's cache folder ($XDG_CACHE_HOME, ~/.cache).
func OpenCache() (*Cache, error) {
	dir := os.Getenv("SLUICE_VM_CACHE")
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("no cache folder, set SLUICE_VM_CACHE: %w", err)
		}
		dir = filepath.Join(base, "sluice-vm")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("cache folder: %w", err)
	}
	return &Cache{dir: dir}, nil
}

// lock waits for the cache's lock of that name; closing the file releases it, and
// so does the end of the process.
func (c *Cache) lock(name string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(c.dir, name+".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return f, nil
}

// slot waits until fewer virtual machines run than this machine bears: one for
// two processors. `go test` runs packages side by side, and software emulation of
// two guests on two processors makes both time out.
func (c *Cache) slot(done <-chan struct{}) (*os.File, error) {
	n := max(1, runtime.NumCPU()/2)
	for {
		for i := range n {
			f, err := os.OpenFile(filepath.Join(c.dir, fmt.Sprintf("slot%d.lock", i)), os.O_CREATE|os.O_RDWR, 0o644)
			if err != nil {
				return nil, err
			}
			if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
				return f, nil
			}
			f.Close()
		}
		select {
		case <-done:
			return nil, fmt.Errorf("interrupted while waiting for another virtual machine to end")
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// kernel returns a fetched kernel, fetching it first if it isn't there.
func (c *Cache) kernel(p Package, refresh bool) (Kernel, error) {
	l, err := c.lock("fetch")
	if err != nil {
		return Kernel{}, err
	}
	defer l.Close()
	dir := filepath.Join(c.dir, "kernels", p.Name)
	if !refresh {
		if k, err := unpacked(p, dir); err == nil {
			return k, nil
		}
	}
	tmp, err := os.MkdirTemp(c.dir, "fetch-")
	if err != nil {
		return Kernel{}, err
	}
	defer os.RemoveAll(tmp)
	if err := c.fetch(p, tmp); err != nil {
		return Kernel{}, fmt.Errorf("fetch kernel %s: %w", p.Name, err)
	}
	if _, err := unpacked(p, tmp); err != nil {
		return Kernel{}, fmt.Errorf("kernel %s: its package isn't laid out as expected: %w", p.Name, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return Kernel{}, err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return Kernel{}, err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return Kernel{}, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return Kernel{}, err
	}
	return unpacked(p, dir)
}

// unpacked finds image and modules in an unpacked package. Debian 14 keeps the
// image with the modules, earlier ones in /boot; modules are in /lib or /usr/lib.
func unpacked(p Package, dir string) (Kernel, error) {
	one := func(patterns ...string) (string, error) {
		for _, pattern := range patterns {
			if m, _ := filepath.Glob(filepath.Join(dir, pattern)); len(m) == 1 {
				return m[0], nil
			}
		}
		return "", fmt.Errorf("not exactly one %s in %s", strings.Join(patterns, " or "), dir)
	}
	image, err := one("boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz")
	if err != nil {
		return Kernel{}, err
	}
	modules, err := one("usr/lib/modules/*", "lib/modules/*")
	if err != nil {
		return Kernel{}, err
	}
	version, err := os.ReadFile(filepath.Join(dir, "version"))
	if err != nil {
		return Kernel{}, err
	}
	return Kernel{Name: p.Name, Image: image, Modules: modules, Version: strings.TrimSpace(string(version))}, nil
}
