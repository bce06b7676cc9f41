// SPDX-License-Identifier: Apache-2.0

// Package importer reads what balances connections today, an nginx.conf or a
// haproxy.cfg, and writes the backends.yaml that does the same. Every word
// that has no counterpart is told by a Note, never dropped in silence;
// docs/import.md lists what becomes of which word.
//
// nginx's syntax is read by a reader of this package (nginxlex.go), which
// follows ngx_conf_read_token. github.com/tufanbarisyildirim/gonginx (MIT, as
// of 2026-02-20) was tried and is unfit for files of other people: a string
// that ends with an escaped backslash swallows the file's rest, a NUL byte ends
// the file without an error, `\;` ends a directive, `#` within Lua hides the
// closing brace, and some megabytes of `a{` overflow the stack, which ends a Go
// process. Of haproxy.cfg, github.com/haproxytech/config-parser (now a part of
// client-native) keeps values and comments but no line numbers, which each Note
// needs, and groups a section's lines by keyword, so that their order is lost; such a
// file is words on lines (haproxylex.go).
package importer

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Result is what became of a file.
type Result struct {
	YAML  []byte // the backends.yaml; nil after an error
	Notes []Note // what isn't carried over, in the order of the files' lines
}

// Note is a word of the source that isn't carried over, or not in full.
type Note struct {
	File string // as it was given or included
	Line int    // from 1
	What string // the word, with its arguments, shortened and printable
	Why  string
}

// String is the note as a line: FILE:LINE: WHAT: why.
func (n Note) String() string {
	return fmt.Sprintf("%s:%d: %s: %s", printable(n.File), n.Line, n.What, n.Why)
}

// Error is why a file can't be imported, and where.
type Error struct{ Note }

func (e *Error) Error() string { return e.String() }

// File imports the file at path, and what an nginx.conf includes. Which of the
// two kinds it is, is seen from its first word. Also after an error the Notes
// say what was found up to there; a file that can't be read is an *fs.PathError.
func File(path string) (Result, error) { return importFrom(disk{}, path) }

func importFrom(d drive, path string) (Result, error) {
	w := &work{drive: d, told: map[Note]bool{}}
	src, err := w.read(path)
	if err != nil {
		return Result{}, err
	}
	if looksLikeHAProxy(src) {
		err = w.haproxy(path, src)
	} else {
		err = w.nginx(path, src)
	}
	if err == nil {
		err = w.fit(path)
	}
	r := Result{Notes: w.sorted()}
	if err != nil {
		return r, err
	}
	r.YAML = w.out.yaml(path)
	return r, nil
}

// place is a line of a source.
type place struct {
	file string
	line int
}

// work is one import under way.
type work struct {
	drive drive
	files []string // in the order in which they were read
	bytes int
	out   file
	notes []Note
	told  map[Note]bool
}

// say adds a note, once.
func (w *work) say(at place, what, why string) {
	n := Note{at.file, at.line, printable(strings.TrimSpace(what)), why}
	if !w.told[n] {
		w.told[n] = true
		w.notes = append(w.notes, n)
	}
}

// sorted are the notes in the order of the files, then of their lines.
func (w *work) sorted() []Note {
	rank := make(map[string]int, len(w.files))
	for i, f := range w.files {
		rank[f] = i
	}
	slices.SortStableFunc(w.notes, func(a, b Note) int {
		if a.File != b.File {
			return rank[a.File] - rank[b.File]
		}
		return a.Line - b.Line
	})
	return w.notes
}

func fail(at place, what, why string) *Error {
	return &Error{Note{at.file, at.line, printable(strings.TrimSpace(what)), why}}
}

// printable is s for a line of a terminal: 100 bytes at most, with what isn't
// printable escaped, and never nothing.
func printable(s string) string {
	const most = 100
	if s == "" {
		return `""`
	}
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
		q := strconv.Quote(s)
		return q[1 : len(q)-1]
	}
	return s
}
