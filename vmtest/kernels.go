// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	_ "embed"
	"fmt"
	"os"
	"strings"
)

//go:embed kernels.list
var kernelList string

// Package is a line of kernels.list: a kernel that can be fetched by name.
type Package struct {
	// Name is what -kernel and SLUICE_VM_KERNEL say.
	Name string
	// Suites are Debian suites; those that end in -security come from the security mirror.
	Suites []string
	// Package is the Debian package, usually a meta package.
	Package string
}

// Kernel is a kernel that can be booted.
type Kernel struct {
	// Name is as in kernels.list, or the image's path for one of the user's own.
	Name string
	// Image is the path of the bzImage.
	Image string
	// Modules is the path of its lib/modules/RELEASE; empty: everything is built in.
	Modules string
	// Version is the package's version; empty for an image of the user's own.
	Version string
}

// Packages lists the kernels that can be fetched, in the order of kernels.list.
func Packages() ([]Package, error) {
	var all []Package
	for _, f := range listFields(kernelList) {
		if len(f) != 3 {
			return nil, fmt.Errorf("kernels.list: %q: want three words: name, suites, package", strings.Join(f, " "))
		}
		all = append(all, Package{Name: f[0], Suites: strings.Split(f[1], ","), Package: f[2]})
	}
	return all, nil
}

// Find returns the kernel of that name from the cache, fetching it first if
// refresh is set or it isn't there. A name with a slash is the path of an image
// of the user's own; modules, if not empty, is its lib/modules/RELEASE.
func Find(cache *Cache, name, modules string, refresh bool) (Kernel, error) {
	if strings.Contains(name, "/") {
		if _, err := os.Stat(name); err != nil {
			return Kernel{}, fmt.Errorf("kernel image: %w", err)
		}
		return Kernel{Name: name, Image: name, Modules: modules}, nil
	}
	all, err := Packages()
	if err != nil {
		return Kernel{}, err
	}
	var names []string
	for _, p := range all {
		if p.Name == name {
			return cache.kernel(p, refresh)
		}
		names = append(names, p.Name)
	}
	return Kernel{}, fmt.Errorf("no kernel %q: there are %s, or the path of an image (with a slash in it)",
		name, strings.Join(names, ", "))
}

// listFields splits a list file into words a line, without comments and empty lines.
func listFields(text string) [][]string {
	var all [][]string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		if f := strings.Fields(line); len(f) > 0 {
			all = append(all, f)
		}
	}
	return all
}
