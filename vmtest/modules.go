// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"bytes"
	"debug/elf"
	_ "embed"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed modules.list
var moduleList string

// module is a kernel module as the guest loads it: uncompressed.
type module struct {
	name  string
	image []byte
}

// moduleTree knows the modules of one lib/modules/RELEASE. Packages come without
// modules.dep (depmod makes it when they are installed), so what a module depends
// on is read from the module itself.
type moduleTree struct {
	path    map[string]string
	builtin map[string]bool
}

func openModules(dir string) (*moduleTree, error) {
	t := &moduleTree{path: map[string]string{}, builtin: map[string]bool{}}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.Contains(d.Name(), ".ko") {
			t.path[moduleName(path)] = path
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("kernel modules: %w", err)
	}
	builtin, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, fmt.Errorf("kernel modules: %w", err)
	}
	for line := range strings.Lines(string(builtin)) {
		t.builtin[moduleName(strings.TrimSpace(line))] = true
	}
	return t, nil
}

// moduleName is the kernel's name for the module in a file: without the ending, _ for -.
func moduleName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// wantedModules are the names of modules.list and extra ones, in that order, and
// the parameters by the module's name.
func wantedModules(extra []string) (names []string, params map[string]string) {
	params = map[string]string{}
	for _, f := range listFields(moduleList) {
		names = append(names, f[0])
		params[moduleName(strings.TrimSuffix(f[0], "?"))] = strings.Join(f[1:], " ")
	}
	return append(names, extra...), params
}

// resolve gives the modules to load for these names, each after what it depends on.
func (t *moduleTree) resolve(names []string) ([]module, error) {
	var all []module
	done := map[string]bool{}
	var add func(name string, optional bool) error
	add = func(name string, optional bool) error {
		name = moduleName(name)
		if done[name] || t.builtin[name] {
			return nil
		}
		done[name] = true
		path := t.path[name]
		if path == "" {
			if optional {
				return nil
			}
			return fmt.Errorf("kernel module %s: neither built in nor in the package", name)
		}
		image, err := readModule(path)
		if err != nil {
			return err
		}
		deps, err := moduleDepends(image)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		for _, dep := range deps {
			if err := add(dep, false); err != nil {
				return fmt.Errorf("for %s: %w", name, err)
			}
		}
		all = append(all, module{name: name, image: image})
		return nil
	}
	for _, name := range names {
		name, optional := strings.CutSuffix(name, "?")
		if err := add(name, optional); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// readModule reads a module, unpacked: kernels before 5.17 can't do that themselves.
func readModule(path string) ([]byte, error) {
	var tool string
	switch filepath.Ext(path) {
	case ".ko":
		return os.ReadFile(path)
	case ".xz":
		tool = "xz"
	case ".zst":
		tool = "zstd"
	case ".gz":
		tool = "gzip"
	default:
		return nil, fmt.Errorf("%s: unknown compression", path)
	}
	out, err := exec.Command(tool, "-dc", path).Output()
	if err != nil {
		return nil, fmt.Errorf("unpack %s with %s: %w", path, tool, err)
	}
	return out, nil
}

func moduleDepends(image []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return nil, err
	}
	s := f.Section(".modinfo")
	if s == nil {
		return nil, fmt.Errorf("no .modinfo section")
	}
	info, err := s.Data()
	if err != nil {
		return nil, err
	}
	for entry := range bytes.SplitSeq(info, []byte{0}) {
		if deps, ok := bytes.CutPrefix(entry, []byte("depends=")); ok && len(deps) > 0 {
			return strings.Split(string(deps), ","), nil
		}
	}
	return nil, nil
}
