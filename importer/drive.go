// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Bounds of what is read: no real configuration comes near, and a file that
// includes itself ends at them.
const (
	maxFileBytes = 4 << 20
	maxAllBytes  = 16 << 20
	maxFiles     = 1000
)

// drive is where files are.
type drive interface {
	// read returns a file's content, up to limit bytes of it.
	read(path string, limit int64) ([]byte, error)
	// glob returns the files that a pattern names, sorted. A bad pattern names none.
	glob(pattern string) []string
}

// disk is the drive of this host.
type disk struct{}

func (disk) read(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

func (disk) glob(pattern string) []string {
	found, err := filepath.Glob(pattern)
	if err != nil {
		return nil
	}
	// As glob(3): a name that begins with a dot takes a pattern that does.
	if !strings.HasPrefix(filepath.Base(pattern), ".") {
		found = slices.DeleteFunc(found, func(f string) bool { return strings.HasPrefix(filepath.Base(f), ".") })
	}
	slices.Sort(found)
	return found
}

// read takes a file into account.
func (w *work) read(path string) (string, error) {
	b, err := w.drive.read(path, maxFileBytes+1)
	if err != nil {
		return "", err
	}
	w.bytes += len(b)
	switch {
	case len(b) > maxFileBytes:
		return "", fail(place{path, 1}, "the file", fmt.Sprintf("has more than %d bytes, must be smaller", maxFileBytes))
	case w.bytes > maxAllBytes || len(w.files) >= maxFiles:
		return "", fail(place{path, 1}, "includes", fmt.Sprintf("are more than %d files or %d bytes in all; does a file include itself?", maxFiles, maxAllBytes))
	}
	if !slices.Contains(w.files, path) {
		w.files = append(w.files, path)
	}
	return string(b), nil
}
