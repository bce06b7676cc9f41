// SPDX-License-Identifier: Apache-2.0

package contender

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Direct is the name of the way without a balancer.
const Direct = "direct"

// Names are all that can be asked for, in the order of tables.
func Names() []string {
	return []string{Direct, "nginx", "haproxy", "nft", "ipvs", "sluice-offload", "sluice-splice", "sluice-relay", "sluice-auto", "sluice-nat"}
}

// Default are those of a usual run: ipvs where the kernel has it, and nat once
// there is one. auto takes the rung of offload wherever that is to be had.
func Default() []string {
	list := []string{Direct, "nginx", "haproxy", "nft"}
	if HasIPVS() {
		list = append(list, "ipvs")
	}
	return append(list, "sluice-offload", "sluice-splice", "sluice-relay")
}

// Auto is sluice's own choice of a datapath, for what differs between it and
// each of those that it chooses from. It is nil if sluice takes no part in list,
// or this does already.
func Auto(list []*Contender) *Contender {
	const name = "sluice-auto"
	for _, c := range list {
		if c.Name == name {
			return nil
		}
	}
	for _, c := range list {
		if c.datapath != "" {
			auto := Sluice(name, c.Program, "auto")
			auto.Version = c.Version
			return auto
		}
	}
	return nil
}

// Find makes the contenders of these names ready to start. sluice is the
// path of its program; empty: it is built from the source tree at root, into dir.
func Find(ctx context.Context, names []string, sluice, root, dir string) ([]*Contender, error) {
	var list []*Contender
	for _, name := range names {
		if !slices.Contains(Names(), name) {
			return nil, fmt.Errorf("unknown contender %q; there are %s", name, strings.Join(Names(), ", "))
		}
		var c *Contender
		var err error
		switch name {
		case Direct:
			c = &Contender{Name: Direct}
		case "nginx":
			c, err = nginx()
		case "haproxy":
			c, err = haproxy()
		case "nft":
			c, err = nft()
		case "ipvs":
			c, err = ipvs()
		default:
			if sluice == "" {
				sluice = filepath.Join(dir, "sluice")
				if err := Build(ctx, root, sluice); err != nil {
					return nil, err
				}
			}
			c = Sluice(name, sluice, strings.TrimPrefix(name, "sluice-"))
		}
		if err != nil {
			return nil, err
		}
		c.Version = version(c)
		list = append(list, c)
	}
	return list, nil
}

// Build builds sluice from the source tree at root.
func Build(ctx context.Context, root, out string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", out, "./cmd/sluice")
	cmd.Dir = root
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("sluice does not build in %s: go build ./cmd/sluice: %w\n%s", root, err, text)
	}
	return nil
}

// FindProgram is the path of an installed program, also where Debian puts
// servers, which an ordinary user's PATH leaves out.
func FindProgram(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	path := filepath.Join("/usr/sbin", name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s is not installed; `make bench-peers` installs it, and -c leaves it out", name)
	}
	return path, nil
}

// version is the first line of what the program says of itself.
func version(c *Contender) string {
	if c.Direct() {
		return ""
	}
	args := map[string]string{"nginx": "-v", "haproxy": "-v", "nft": "--version", "ipvs": "--version"}
	arg, ok := args[c.Name]
	if !ok {
		arg = "version"
	}
	text, err := exec.Command(c.Program, arg).CombinedOutput()
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	return line
}
