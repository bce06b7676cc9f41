// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func warningsOf(t *testing.T, name string, data []byte) string {
	t.Helper()
	c, all, err := Check(name, data)
	if err != nil || c == nil {
		t.Fatal(err)
	}
	lines := make([]string, len(all))
	for i, w := range all {
		lines[i] = w.String() + "\n"
	}
	return strings.Join(lines, "")
}

// Each testdata/warn/NAME.yaml is valid and has its exact warnings in NAME.txt.
func TestWarnings(t *testing.T) {
	files, err := filepath.Glob("testdata/warn/*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, path := range files {
		t.Run(path, func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			got := warningsOf(t, filepath.Base(path), data)
			beside := strings.TrimSuffix(path, ".yaml") + ".txt"
			if *update {
				if err := os.WriteFile(beside, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(beside)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What says no more than a default, and what this project shows, has none; nor
// have their dumps, where every default is written.
func TestNoWarnings(t *testing.T) {
	files, err := filepath.Glob("../examples/*/backends.yaml")
	if err != nil || len(files) < 2 {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	for _, path := range append(files, "testdata/good/minimal.yaml", "testdata/good/minimal.json", "testdata/good/interface.yaml") {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := warningsOf(t, path, data); got != "" {
			t.Errorf("%s has warnings:\n%s", path, got)
		}
		c, err := Load(path, data)
		if err != nil {
			t.Fatal(err)
		}
		if got := warningsOf(t, "dump of "+path, c.Dump()); got != "" {
			t.Errorf("its dump has warnings:\n%s", got)
		}
	}
}

// An anchor's warning is told once, at the anchor.
func TestWarningOfAnchor(t *testing.T) {
	const text = `pools: {p: &p {backends: [{address: 10.0.0.1:1, max_fails: 0, fail_timeout: 1m}, b:1]}, q: *p}
listeners: [{name: a, listen: ":80", pool: p}, {name: b, listen: ":81", pool: q}]
`
	want := "f:1:63: warning: fail_timeout changes nothing with max_fails: 0, which never ejects the backend\n"
	if got := warningsOf(t, "f", []byte(text)); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestCheckFile(t *testing.T) {
	dir := t.TempDir()
	_, _, err := CheckFile(filepath.Join(dir, "none"))
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that isn't there: %v", err)
	}
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, []byte("listeners: [{name: a, listen: ':80', backends: [10.0.0.1:1], deny: [all]}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, all, err := CheckFile(path)
	if err != nil || c.File != path || len(all) != 1 || all[0].File != path {
		t.Errorf("%v, %v, %v", c, all, err)
	}
	if err := os.WriteFile(path, []byte("listeners: ["), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, all, err := CheckFile(path); err == nil || c != nil || all != nil {
		t.Errorf("%v, %v, %v", c, all, err)
	}
}
