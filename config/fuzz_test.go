// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"testdata/bad/*.yaml", "testdata/good/*", "testdata/warn/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, path := range files {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, warnings, err := Check("f", data)
		if (c == nil) == (err == nil) {
			t.Fatalf("both or neither: %v, %v", c, err)
		}
		if err != nil {
			var all Errors
			if !errors.As(err, &all) || len(all) == 0 {
				t.Fatalf("not Errors: %v", err)
			}
			lines := bytes.Count(data, []byte("\n")) + 1
			for _, one := range all {
				if one.Line < 1 || one.Line > lines || one.Column < 1 {
					t.Errorf("no such place: %v", one)
				}
			}
			return
		}
		for _, w := range warnings {
			if lines := bytes.Count(data, []byte("\n")) + 1; w.Line < 1 || w.Line > lines || w.Column < 1 {
				t.Errorf("no such place: %v", w)
			}
		}
		again, err := Load("f", c.Dump())
		if err != nil {
			t.Fatalf("%v\n%s", err, c.Dump())
		}
		if !c.Equal(again) {
			t.Errorf("dump differs:\n%s\n%s", c.Dump(), again.Dump())
		}
	})
}
