// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// parseNginx reads a file into directives; includes stay as they are. With
// prose not nil, text behind a `;`, `{` or `}` that can't be a directive is
// passed over up to the end of its line, and told: nginx refuses such a file,
// but tutorials have them.
func parseNginx(file, src string, prose *prose) ([]*directive, *Error) {
	l := &lexer{src: src, line: 1, file: file}
	root := &directive{}
	open := []*directive{root}
	for {
		if prose != nil {
			prose.skip(l)
		}
		d, end, err := l.statement()
		if err != nil {
			return nil, err
		}
		in := open[len(open)-1]
		switch end.kind {
		case endOfFile:
			if in != root {
				return nil, fail(in.at, in.String(), `its "{" is never closed by "}"`)
			}
			return root.block, nil
		case '}':
			if in == root {
				return nil, fail(place{file, end.line}, `"}"`, "closes nothing that is open")
			}
			open = open[:len(open)-1]
			continue
		case '{':
			d.braced = true
			if strings.HasSuffix(d.name, "_by_lua_block") {
				if err := l.skipLua(d.at); err != nil {
					return nil, err
				}
				break
			}
			if len(open) == maxDepth {
				return nil, fail(d.at, d.String(), fmt.Sprintf("more than %d blocks within each other", maxDepth))
			}
			open = append(open, d)
		}
		in.block = append(in.block, d)
	}
}

// statement reads a directive up to its `;` or `{`, or the `}` or end of file
// in its place.
func (l *lexer) statement() (*directive, token, *Error) {
	var words []string
	var first token
	for {
		t, err := l.next()
		if err != nil {
			return nil, t, err
		}
		if t.kind == aWord {
			if words == nil {
				first = t
			}
			words = append(words, t.text)
			continue
		}
		begun := strings.Join(words, " ")
		switch {
		case words == nil && (t.kind == ';' || t.kind == '{'):
			return nil, t, fail(place{l.file, t.line}, fmt.Sprintf("%q", t.text), "stands where a directive must begin")
		case words != nil && t.kind == '}':
			return nil, t, fail(place{l.file, first.line}, begun, fmt.Sprintf(`has no ";" before the "}" of line %d`, t.line))
		case words != nil && t.kind == endOfFile:
			return nil, t, fail(place{l.file, first.line}, begun, `has no ";" before the end of the file`)
		case words == nil:
			return nil, t, nil
		}
		return &directive{name: words[0], args: words[1:], at: place{l.file, first.line}}, t, nil
	}
}

// prose is text that somebody wrote behind a directive, without a `#`.
type prose struct {
	known map[string]bool // words that begin a directive
	tell  func(at place, text string)
}

// skip passes over the rest of a line that goes on behind a directive with a
// word that is none, and ends without ending a directive.
func (p *prose) skip(l *lexer) {
	if l.afterLine != l.line {
		return
	}
	rest := l.src[l.pos:]
	if n := strings.IndexAny(rest, ";{}#\n"); n >= 0 {
		if strings.IndexByte(";{}", rest[n]) >= 0 {
			return
		}
		rest = rest[:n]
	}
	words := strings.Fields(rest)
	if len(words) == 0 || p.known[words[0]] {
		return
	}
	p.tell(l.here(), strings.TrimSpace(rest))
	l.pos += len(rest)
}

// freeForm are the blocks whose entries begin with a value, not with the name
// of a directive.
func freeForm(name string) bool {
	return slices.Contains([]string{"map", "geo", "types", "split_clients", "charset_map", "match"}, name)
}

// plausible tells whether all names could be those of directives.
func plausible(list []*directive) bool {
	for _, d := range list {
		if strings.ContainsFunc(d.name, func(r rune) bool { return r > 0x7E }) || !freeForm(d.name) && !plausible(d.block) {
			return false
		}
	}
	return true
}

// parse reads a file strictly, and if it can't be or makes no sense, without
// the prose in it.
func (x *nginx) parse(file, src string) ([]*directive, error) {
	list, err := parseNginx(file, src, nil)
	if err == nil && plausible(list) {
		return list, nil
	}
	list, err = parseNginx(file, src, &prose{nginxWords(), func(at place, text string) {
		x.say(at, text, `text behind a ";" or brace that is no directive, taken for a comment that lacks its "#"; nginx refuses this file`)
	}})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// expand puts the files that are included in the place of their includes.
func (x *nginx) expand(list []*directive) ([]*directive, error) {
	if !slices.ContainsFunc(list, func(d *directive) bool { return d.name == "include" }) {
		return list, nil
	}
	var out []*directive
	for _, d := range list {
		if d.name != "include" || len(d.args) != 1 {
			out = append(out, d)
			continue
		}
		files, err := x.included(d)
		if err != nil {
			return nil, err
		}
		out = append(out, files...)
	}
	return out, nil
}

// included are the directives of the files that one include names.
func (x *nginx) included(d *directive) ([]*directive, error) {
	pattern := d.args[0]
	if !filepath.IsAbs(pattern) {
		pattern = filepath.Join(x.root, pattern)
	}
	files := []string{pattern}
	if strings.ContainsAny(pattern, "*?[") {
		files = x.drive.glob(pattern)
	}
	var out []*directive
	for _, f := range files {
		if slices.Contains(x.including, f) {
			return nil, fail(d.at, d.String(), "a file that includes itself")
		}
		src, err := x.read(f)
		if bad, ok := err.(*Error); ok {
			return nil, bad
		}
		if err != nil {
			x.say(d.at, d.String(), "what it says is not carried over: it can't be read, "+reason(err))
			continue
		}
		list, err := x.parse(f, src)
		if err != nil {
			return nil, err
		}
		x.including = append(x.including, f)
		list, err = x.expand(list)
		x.including = x.including[:len(x.including)-1]
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	return out, nil
}
