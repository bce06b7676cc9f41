// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the messages of the bad files as they are now, to be read before they are committed")

// Each testdata/bad/NAME.yaml has its exact messages in NAME.txt.
func TestLoadBad(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) < 100 {
		t.Fatalf("%d bad files, %v", len(files), err)
	}
	for _, path := range files {
		name := filepath.Base(path)
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			c, err := Load(name, data)
			var all Errors
			if c != nil || !errors.As(err, &all) || len(all) == 0 {
				t.Fatalf("accepted: %v, %v", c, err)
			}
			beside := strings.TrimSuffix(path, ".yaml") + ".txt"
			if *update {
				if err := os.WriteFile(beside, []byte(err.Error()+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(beside)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), all.Error()+"\n"); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Each good file and each example loads, and its dump gives the same configuration and
// dump.
func TestDumpRoundTrip(t *testing.T) {
	files, err := filepath.Glob("testdata/good/*")
	if err != nil || len(files) < 6 {
		t.Fatalf("%d good files, %v", len(files), err)
	}
	examples, err := filepath.Glob("../examples/*/backends.yaml")
	if err != nil || len(examples) < 2 {
		t.Fatalf("%d examples, %v", len(examples), err)
	}
	for _, path := range append(files, examples...) {
		t.Run(path, func(t *testing.T) {
			c, err := ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if c.File != path {
				t.Errorf("file is %q", c.File)
			}
			again, err := Load("dump", c.Dump())
			if err != nil {
				t.Fatalf("%v\n%s", err, c.Dump())
			}
			if !c.Equal(again) {
				t.Error(cmp.Diff(string(c.Dump()), string(again.Dump())))
			}
		})
	}
}

func TestReadFileMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.yaml")
	_, err := ReadFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("not ErrNotExist: %v", err)
	}
	want := path + ":1:1: can't read the file: no such file or directory, must be there: write it, or name another with -c"
	if err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
}

func TestTooLarge(t *testing.T) {
	_, err := Load("f", []byte(strings.Repeat("#\n", maxFileBytes/2+1)))
	if err == nil || err.Error() != "f:1:1: the file has more than 4194304 bytes, must be smaller" {
		t.Error(err)
	}
}

// Aliases may not make a small file a large one.
func TestAliasBomb(t *testing.T) {
	var b strings.Builder
	b.WriteString("pools:\n  p: {backends: &l [")
	for i := range 5000 {
		fmt.Fprintf(&b, "h:%d,", i+1)
	}
	b.WriteString("]}\n")
	for i := range 5000 {
		b.WriteString("  p" + strings.Repeat("x", i%200) + string(rune('a'+i/200)) + ": {backends: *l}\n")
	}
	_, err := Load("f", []byte(b.String()))
	if err == nil || err.Error() != "f:1:1: more than 262144 values with all aliases and port ranges expanded, must be fewer" {
		t.Errorf("%.200v", err)
	}
}

// Keys of one level aren't levels, however their lengths grow.
func TestManyKeysAreNotDeep(t *testing.T) {
	var b strings.Builder
	b.WriteString("pools:\n")
	for i := range 200 {
		b.WriteString("  p" + strings.Repeat("x", i) + ":\n    backends:\n      - h:1\n")
	}
	b.WriteString("listeners: [{name: a, listen: ':80', pool: p}]\n")
	if _, err := Load("f", []byte(b.String())); err != nil {
		t.Error(err)
	}
}

// What makes a recursive parser overflow is refused before it.
func TestDeep(t *testing.T) {
	for _, s := range []string{"[", "{a: ", "- ", "? ", "!!a ", "&a ", "a:\n - "} {
		if _, err := Load("f", []byte(strings.Repeat(s, 2000))); err == nil {
			t.Errorf("%q accepted", s)
		}
	}
}

func TestManyKeys(t *testing.T) {
	_, err := Load("f", []byte(strings.Repeat("a: 1\n", maxKeys+1)))
	if err == nil || err.Error() != "f:10001:2: more than 10000 keys in one mapping, must be fewer" {
		t.Errorf("%.200v", err)
	}
}
