// SPDX-License-Identifier: Apache-2.0

package service

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"sluice/config"
	"sluice/internal/sockowner"
	"sluice/stats"
)

// DefaultFile is the configuration of a sluice that isn't given one.
const DefaultFile = "/etc/sluice/backends.yaml"

// running is what else has addresses that a file names: above all a sluice that
// serves this very file, which is no obstacle.
type running struct {
	file    string      // the file that is examined, as given
	info    os.FileInfo // of it
	pid     int         // of the sluice whose endpoint says that it serves the file; 0: none does
	listen  []config.Address
	sockets []sockowner.Socket
}

// findRunning asks the endpoint that c names, and lists who listens.
func findRunning(c *config.Config, file string) *running {
	r := &running{file: file, sockets: sockowner.Listening()}
	var err error
	if r.info, err = os.Stat(file); err != nil || c.Stats.Off {
		return r
	}
	body, err := stats.Fetch(c.Stats.Address, "/stats")
	if err != nil {
		return r
	}
	var s stats.Snapshot
	if json.Unmarshal(body, &s) != nil || s.PID <= 0 || !r.serves(s.PID, s.Config.File) {
		return r
	}
	r.pid = s.PID
	for _, l := range s.Listeners {
		for _, text := range l.Listen {
			if list, err := config.ParseFronts(text); err == nil {
				r.listen = append(r.listen, list...)
			}
		}
	}
	return r
}

// serves says whether the process calls the examined file path.
func (r *running) serves(pid int, path string) bool {
	proc := "/proc/" + strconv.Itoa(pid)
	if !filepath.IsAbs(path) {
		dir, err := os.Readlink(proc + "/cwd")
		if err != nil {
			// Another user's process: whatever its directory is, ours ends alike.
			abs, err := filepath.Abs(r.file)
			return err == nil && strings.HasSuffix(abs, "/"+filepath.Clean(path))
		}
		path = filepath.Join(dir, path)
	}
	// Through its root first: in a container the path means another file.
	info, err := os.Stat(proc + "/root" + path)
	if err != nil {
		info, err = os.Stat(path)
	}
	return err == nil && os.SameFile(info, r.info)
}

// holder says who has a, or what overlaps with it: own if it is a sluice that
// serves the examined file. pid 0: nobody who could be seen.
func (r *running) holder(a config.Address) (pid int, own bool) {
	if r.pid > 0 && slices.ContainsFunc(r.listen, func(b config.Address) bool { return a == b || overlap(a, b) }) {
		return r.pid, true
	}
	inodes := map[uint64]bool{}
	for _, s := range r.sockets {
		b := config.Address{Addr: s.Addr.Addr(), Port: s.Addr.Port(), Path: s.Path}
		b.Any = s.Path == "" && b.Addr.Is6() && b.Addr.IsUnspecified() // perhaps of one family only: then nothing of it is in the way
		if a == b || overlap(a, b) {
			inodes[s.Inode] = true
		}
	}
	pid = sockowner.Owner(inodes)
	if pid == 0 {
		return 0, false
	}
	path, isRun := runFile(pid)
	return pid, isRun && r.serves(pid, path)
}

// runFile is the configuration that a process was started with, if it is a
// `sluice run` by its arguments.
func runFile(pid int) (file string, isRun bool) {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return "", false
	}
	args := strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
	if len(args) < 2 || args[1] != "run" {
		return "", false
	}
	file = DefaultFile
	for i, arg := range args[2:] {
		name, value, joined := strings.Cut(arg, "=")
		if strings.TrimLeft(name, "-") != "c" && strings.TrimLeft(name, "-") != "config" || name[0] != '-' {
			continue
		}
		if !joined && i+3 < len(args) {
			value = args[i+3]
		}
		file = value
	}
	return file, true
}

// nameOf is a process's name and number, for people.
func nameOf(pid int) string {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return fmt.Sprintf("pid %d", pid)
	}
	return fmt.Sprintf("%q, pid %d", strings.TrimSpace(string(name)), pid)
}
