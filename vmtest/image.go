// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	guestSpecPath = "/vmtest.json"
	modulePath    = "/modules"
	// maxTreeFile bounds what is packed of the module's tree: built programs and
	// downloads lie about in it, and tests read small files.
	maxTreeFile = 4 << 20
)

// hostTools are packed when the host has them; a test that needs one which the
// host lacks fails in the guest as it would here. dash comes before busybox and is
// /bin/sh: busybox's shell runs its own `ip` although a better one is in PATH.
var hostTools = [...]string{"ip", "ss", "tc", "nft", "dash", "busybox"}

// writeImage writes the initramfs for a run.
func writeImage(path string, s *Spec, g *guestSpec) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	c := newCPIO(f)
	for _, step := range []func() error{
		func() error { return packBase(c) },
		func() error { return packModules(c, s, g) },
		func() error { return packProgram(c, s.Command[0]) },
		func() error { return packTools(c, s.Tools) },
		func() error { return packFiles(c, s.Files) },
		func() error { return packTree(c, s.Dir) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	spec, err := json.Marshal(g)
	if err != nil {
		return err
	}
	if err := c.data(guestSpecPath, 0o644, string(spec)); err != nil {
		return err
	}
	return c.Close()
}

// packBase adds process 1 (this program), and the little of /etc that C
// libraries and Go's net look at.
func packBase(c *cpio) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if libs, err := libraries(self); err != nil {
		return err
	} else if len(libs) > 0 {
		return fmt.Errorf("%s is linked dynamically, and process 1 of a guest can't be: build it with CGO_ENABLED=0 (make vmtest-run)", self)
	}
	if err := c.file("/init", self); err != nil {
		return err
	}
	if err := c.console(); err != nil {
		return err
	}
	for path, mode := range map[string]uint32{
		"/proc": 0o555, "/sys": 0o555, "/tmp": 0o1777, "/var/tmp": 0o1777, "/run": 0o755,
		"/root": 0o700, "/var/log": 0o755, "/var/lib": 0o755, "/mnt": 0o755,
	} {
		if err := c.dir(path, mode); err != nil {
			return err
		}
	}
	for path, text := range map[string]string{
		"/etc/passwd":        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
		"/etc/group":         "root:x:0:\nnogroup:x:65534:\n",
		"/etc/hosts":         "127.0.0.1 localhost\n::1 localhost\n",
		"/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
		"/etc/resolv.conf":   "",
		"/etc/hostname":      "vmtest\n",
	} {
		if err := c.data(path, 0o644, text); err != nil {
			return err
		}
	}
	return nil
}

func packModules(c *cpio, s *Spec, g *guestSpec) error {
	if s.Kernel.Modules == "" {
		return nil
	}
	t, err := openModules(s.Kernel.Modules)
	if err != nil {
		return err
	}
	names, params := wantedModules(s.Modules)
	all, err := t.resolve(names)
	if err != nil {
		return err
	}
	for _, m := range all {
		path := filepath.Join(modulePath, m.name+".ko")
		if err := c.data(path, 0o644, string(m.image)); err != nil {
			return err
		}
		g.Modules = append(g.Modules, guestModule{Path: path, Params: params[m.name]})
	}
	return nil
}

// packProgram adds a program of the host and its libraries, at the paths they have here.
func packProgram(c *cpio, path string) error {
	libs, err := libraries(path)
	if err != nil {
		return err
	}
	for _, p := range append([]string{path}, libs...) {
		if err := c.file(p, p); err != nil {
			return err
		}
	}
	return nil
}

// libraries are the shared libraries of a program, with its loader; none for a
// static one and for a script.
func libraries(path string) ([]string, error) {
	out, err := exec.Command("ldd", path).CombinedOutput()
	if err != nil {
		if text := string(out); strings.Contains(text, "not a dynamic executable") || strings.Contains(text, "statically linked") {
			return nil, nil
		}
		return nil, fmt.Errorf("ldd %s: %w: %s", path, err, strings.TrimSpace(string(out)))
	}
	var libs []string
	for line := range strings.Lines(string(out)) {
		if _, after, ok := strings.Cut(line, "=>"); ok {
			line = after
		}
		f := strings.Fields(line)
		if len(f) > 0 && strings.HasPrefix(f[0], "/") {
			libs = append(libs, f[0])
		} else if strings.Contains(line, "not found") {
			return nil, fmt.Errorf("ldd %s: %s", path, strings.TrimSpace(line))
		}
	}
	return libs, nil
}

// packTools adds the usual tools of the host and the named ones, and busybox's
// applets for what is missing.
func packTools(c *cpio, named []string) error {
	for i, name := range append(hostTools[:], named...) {
		path, err := exec.LookPath(name)
		if err != nil {
			if i < len(hostTools) {
				continue
			}
			return fmt.Errorf("tool for the guest: %w", err)
		}
		if path, err = filepath.Abs(path); err != nil {
			return err
		}
		if err := packProgram(c, path); err != nil {
			return err
		}
		switch name {
		case "dash":
			err = c.symlink("/bin/sh", path)
		case "busybox":
			err = packApplets(c, path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// packApplets links busybox's applets in /bin, which the guest's PATH has last.
func packApplets(c *cpio, busybox string) error {
	out, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return fmt.Errorf("%s --list: %w", busybox, err)
	}
	for name := range strings.FieldsSeq(string(out)) {
		if err := c.symlink("/bin/"+name, busybox); err != nil {
			return err
		}
	}
	return nil
}

// packFiles adds files of the host: guest path to host path. Programs bring their libraries.
func packFiles(c *cpio, files map[string]string) error {
	for guest, host := range files {
		if err := c.file(guest, host); err != nil {
			return err
		}
		libs, err := libraries(host)
		if err != nil {
			return err
		}
		for _, p := range libs {
			if err := c.file(p, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// packTree adds the Go module that dir is in, at the path it has here, so that a
// test finds testdata and its neighbours' files. Without a module: dir alone.
func packTree(c *cpio, dir string) error {
	var root string
	for up := dir; ; up = filepath.Dir(up) {
		if _, err := os.Stat(filepath.Join(up, "go.mod")); err == nil {
			root = up
			break
		}
		if up == filepath.Dir(up) {
			break
		}
	}
	if err := c.dir(dir, 0o755); err != nil {
		return err
	}
	if root == "" {
		return nil
	}
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // others work in the tree: what goes meanwhile isn't needed
		}
		if err != nil {
			return err
		}
		if d.IsDir() {
			if path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules") {
				return filepath.SkipDir
			}
			return c.dir(path, 0o755)
		}
		st, err := d.Info()
		if err != nil || !st.Mode().IsRegular() || st.Size() > maxTreeFile {
			return nil
		}
		content, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return c.data(path, uint32(st.Mode().Perm()), string(content))
	})
}
