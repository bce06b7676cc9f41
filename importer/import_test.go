// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// memory is a drive of files by path.
type memory map[string]string

func (m memory) read(name string, limit int64) ([]byte, error) {
	s, ok := m[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return []byte(s[:min(int64(len(s)), limit)]), nil
}

func (m memory) glob(pattern string) (all []string) {
	for name := range m {
		if ok, err := path.Match(pattern, name); ok && err == nil {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

const small = "stream { server { listen 1; proxy_pass 10.0.0.1:1; } }"

// Files that can't be imported say why, with the place in the file that is wrong.
func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name  string
		files memory
		want  string
	}{
		{"nothing there", memory{}, "open nginx.conf: file does not exist"},
		{"empty", memory{"nginx.conf": ""}, "nginx.conf:1: the file: has nothing that sluice could serve, so there is no backends.yaml"},
		{"no stream", memory{"nginx.conf": "events {}\nhttp { server { listen 80; } }"}, "nginx.conf:1: the file: has nothing that sluice could serve"},
		{"no listen", memory{"nginx.conf": "global\n maxconn 1\n"}, "nginx.conf:1: the file: has nothing that sluice could serve"},
		{"syntax", memory{"nginx.conf": "stream {\n server { listen 1\n}"}, `nginx.conf:2: listen 1: has no ";" before the "}" of line 3`},
		{"an include's syntax", memory{"nginx.conf": "stream { include a.conf; }", "a.conf": "\nserver {"}, `a.conf:2: server: its "{" is never closed`},
		{"itself", memory{"nginx.conf": "stream {\n include nginx.conf; }"}, "nginx.conf:2: include nginx.conf: a file that includes itself"},
		{"a circle", memory{"nginx.conf": "include a;", "a": "include b;", "b": "\ninclude a;"}, "b:2: include a: a file that includes itself"},
		{"a flood", flood(), "includes: are more than 1000 files or 16777216 bytes in all"},
		{"large", memory{"nginx.conf": strings.Repeat("#\n", maxFileBytes/2+1)}, "nginx.conf:1: the file: has more than 4194304 bytes"},
		{"before a section", memory{"nginx.conf": ".if 1\nglobal\n.endif\nserver x\nglobal"}, `nginx.conf:4: server x: stands before any section`},
		{"a quote", memory{"nginx.conf": "listen a\n bind \"x\n"}, `nginx.conf:2: bind "x: opens a quote that is never closed`},
		{"too many defaults", memory{"nginx.conf": "defaults\n" + strings.Repeat("log x\n", maxDefaults+1)}, "nginx.conf:1: defaults: has more than 2000 lines"},
	} {
		r, err := importFrom(c.files, "nginx.conf")
		if err == nil || !strings.Contains(err.Error(), c.want) || r.YAML != nil {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
	_, err := File(filepath.Join(t.TempDir(), "none"))
	var missing *fs.PathError
	if !errors.As(err, &missing) {
		t.Errorf("a file that isn't there: %v", err)
	}
}

// flood is a file that includes others twice over, level by level.
func flood() memory {
	m := memory{"nginx.conf": "stream { include f0; }"}
	for i := range 30 {
		m[fmt.Sprintf("f%d", i)] = fmt.Sprintf("include f%d; include f%d;\n", i+1, i+1) + strings.Repeat("#", 1000)
	}
	return m
}

// Which kind of file it is, is seen from its first word.
func TestKind(t *testing.T) {
	for src, haproxy := range map[string]bool{
		"global\n": true, "# x\n\n  defaults\n mode tcp": true, "listen a\n bind :1": true, "frontend a\n": true, ".if 1\nglobal\n": true, "peers p\n": true,
		"": false, "stream {": false, "listen 80;": false, "user x;\nglobal\n": false, "server {": false, "include a;": false, "upstream listen {": false,
	} {
		if got := looksLikeHAProxy(src); got != haproxy {
			t.Errorf("%q is a haproxy.cfg: %t", src, got)
		}
	}
}

// Many of a kind are no more than many.
func TestMany(t *testing.T) {
	const n = 5000
	for name, src := range map[string]string{
		"servers":   "stream { upstream u { " + strings.Repeat("server 10.0.0.1:1;", n) + "} server { listen 1; proxy_pass u; } }",
		"listeners": "stream { " + strings.Repeat("server { listen 1; proxy_pass 10.0.0.1:1; }", n) + "}",
		"webs":      "http { " + strings.Repeat("server { listen 1; location / { grpc_pass a:1; } }", n) + "}",
		"rules":     small + "stream { server { listen 2; proxy_pass 10.0.0.1:1; " + strings.Repeat("allow 10.0.0.0/8; deny 10.0.0.1;", n) + "} }",
		"comments":  small + strings.Repeat("#\n", n),
		"prose":     small + strings.Repeat("a;为\n", n),
		"one line":  small + strings.Repeat("a;", n) + "为;",
		"sections":  "defaults\n mode tcp\n" + strings.Repeat("listen a\n bind :1\n server x 10.0.0.1:1\n", n),
		"proxies":   "defaults\n timeout client 1s\n" + strings.Repeat("listen a\n bind :1-60000\n", n) + "listen b\n bind :1\n server x 10.0.0.1:1\n",
	} {
		if _, err := importFrom(memory{"f": src}, "f"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzImport: whatever is in the file, it is refused with a place in it, or
// what comes out passes `sluice check`; notes have places in it.
func FuzzImport(f *testing.F) {
	for _, pattern := range []string{"testdata/nginx/*.conf", "testdata/haproxy/*.cfg", "testdata/includes/conf.d/*.conf"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatal(files, err)
		}
		for _, file := range files {
			src, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(src)
		}
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		r, err := importFrom(memory{"f": string(src)}, "f")
		lines := bytes.Count(src, []byte("\n")) + 1
		notes := r.Notes
		if err != nil {
			var bad *Error
			if !errors.As(err, &bad) || r.YAML != nil {
				t.Fatalf("%v", err)
			}
			notes = append(notes, bad.Note)
		} else {
			passes(t, r.YAML)
		}
		for _, n := range notes {
			if n.File != "f" || n.Line < 1 || n.Line > lines || strings.ContainsAny(n.String(), "\n\r\x1b") || n.What == "" || n.Why == "" {
				t.Errorf("%q", n.String())
			}
		}
	})
}
