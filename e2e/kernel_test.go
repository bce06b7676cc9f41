// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// fds is how many descriptors the instance has.
func (i *instance) fds() int {
	i.t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", i.cmd.Process.Pid))
	if err != nil {
		i.t.Fatal(err)
	}
	return len(list)
}

// kernelObjects are the BPF programs, maps and links that the instance holds,
// by kind and kernel number.
func (i *instance) kernelObjects() map[string][]uint32 {
	i.t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", i.cmd.Process.Pid))
	if err != nil || len(files) == 0 {
		i.t.Fatalf("fdinfo: %v, %d files", err, len(files))
	}
	found := make(map[string][]uint32)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // closed since
		}
		kind, id := "", uint64(0)
		for line := range strings.Lines(string(b)) {
			key, value, _ := strings.Cut(line, ":")
			switch key {
			case "link_id", "map_id", "prog_id":
				if kind != "link_id" { // a link's fdinfo names its program, too
					kind = key
					id, _ = strconv.ParseUint(strings.TrimSpace(value), 10, 32)
				}
			}
		}
		if kind != "" {
			found[kind] = append(found[kind], uint32(id))
		}
	}
	return found
}

// allGone waits until what an instance held is no longer in the kernel.
func allGone(t testing.TB, held map[string][]uint32) {
	t.Helper()
	for kind, ids := range held {
		for _, id := range ids {
			eventually(t, func() string {
				if gone(t, kind, id) {
					return ""
				}
				return fmt.Sprintf("%s %d is still in the kernel", kind, id)
			})
		}
	}
}

// gone says whether a program or map is no longer in the kernel.
func gone(t testing.TB, kind string, id uint32) bool {
	t.Helper()
	var err error
	switch kind {
	case "prog_id":
		var p *ebpf.Program
		if p, err = ebpf.NewProgramFromID(ebpf.ProgramID(id)); err == nil {
			p.Close()
		}
	case "map_id":
		var m *ebpf.Map
		if m, err = ebpf.NewMapFromID(ebpf.MapID(id)); err == nil {
			m.Close()
		}
	default: // a link goes with its program
		return true
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		t.Fatal(err)
	}
	return err != nil
}

// mapEntries counts what is in the instance's hashes: picks, sockets, flows.
func (i *instance) mapEntries() map[string]int {
	i.t.Helper()
	counts := make(map[string]int)
	for _, id := range i.kernelObjects()["map_id"] {
		m, err := ebpf.NewMapFromID(ebpf.MapID(id))
		if err != nil {
			i.t.Fatal(err)
		}
		switch m.Type() {
		case ebpf.Hash, ebpf.LRUHash, ebpf.SockHash, ebpf.LRUCPUHash, ebpf.PerCPUHash:
			info, err := m.Info()
			if err != nil {
				i.t.Fatal(err)
			}
			n := 0
			key := make([]byte, m.KeySize())
			next := make([]byte, m.KeySize())
			for err = m.NextKey(nil, next); err == nil && n < 1_000_000; err = m.NextKey(key, next) {
				n++
				copy(key, next)
			}
			if !errors.Is(err, ebpf.ErrKeyNotExist) {
				i.t.Fatalf("%s: %v", info.Name, err)
			}
			counts[fmt.Sprintf("%s/%d", info.Name, id)] = n
		}
		m.Close()
	}
	return counts
}

// status is a field of every thread's /proc/PID/task/TID/status.
func (i *instance) status(field string) map[string]int {
	i.t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", i.cmd.Process.Pid))
	if err != nil || len(files) == 0 {
		i.t.Fatalf("threads: %v, %d files", err, len(files))
	}
	values := make(map[string]int)
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			continue // a thread that has ended
		}
		for s := bufio.NewScanner(f); s.Scan(); {
			if v, ok := strings.CutPrefix(s.Text(), field+":"); ok {
				values[strings.TrimSpace(v)]++
			}
		}
		f.Close()
	}
	return values
}
