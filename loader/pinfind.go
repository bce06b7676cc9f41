// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bufio"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
)

// pinDepth is how deep in a BPF filesystem paths of instances are looked for.
const pinDepth = 3

// pinnedAnywhere says whether a program is one that an instance has pinned: it may run
// on without a process that claims it. Only what this process may read is found.
func pinnedAnywhere(id ebpf.ProgramID) bool {
	name := programName(id)
	for _, root := range bpfMounts() {
		found := false
		_ = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return fs.SkipDir
			case e.Name() == name:
				found = true
				return fs.SkipAll
			case e.IsDir() && strings.Count(strings.TrimPrefix(path, root), "/") >= pinDepth:
				return fs.SkipDir
			}
			return nil
		})
		if found {
			return true
		}
	}
	return false
}

// bpfMounts are the places where BPF filesystems are mounted.
func bpfMounts() (list []string) {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return nil
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 2 && fields[2] == "bpf" {
			list = append(list, fields[1])
		}
	}
	return list
}
