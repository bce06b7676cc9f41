// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"fmt"
	"slices"
	"strings"
)

// hline is a line of haproxy.cfg: its words, quotes and escapes resolved.
type hline struct {
	words []string
	at    place
	env   bool // a $VARIABLE of the environment is in it
}

// String is the line as a message names it.
func (l hline) String() string { return strings.Join(l.words, " ") }

func (l hline) word(i int) string {
	if i < len(l.words) {
		return l.words[i]
	}
	return ""
}

// hsection is a section of haproxy.cfg.
type hsection struct {
	kind, name string
	at         place
	lines      []hline
	byKey      map[string][]hline // the same lines
	from       *hsection          // the defaults that hold for it
	told       bool               // a defaults whose lost lines have been told
}

// maxDefaults is how many lines a defaults may have: each section that it holds
// for looks through some of them.
const maxDefaults = 2000

// sections are the words that begin one.
func sectionWords() []string {
	return []string{
		"global", "defaults", "frontend", "backend", "listen", "peers", "resolvers", "userlist", "mailers", "program", "cache",
		"ring", "http-errors", "fcgi-app", "log-forward", "crt-store", "traces", "acme", "log-profile",
	}
}

// looksLikeHAProxy tells a haproxy.cfg from an nginx.conf: its first line
// begins a section, and no statement of nginx.
func looksLikeHAProxy(src string) bool {
	for line := range strings.Lines(src) {
		words, _, err := haproxyWords(line)
		if err != "" {
			return false
		}
		if len(words) > 0 && !strings.HasPrefix(words[0], ".") {
			return slices.Contains(sectionWords(), words[0]) && !strings.ContainsAny(line, ";{")
		}
	}
	return false
}

// haproxyWords splits a line as parse_line of HAProxy does (src/tools.c): a
// backslash takes the next character along, also within double quotes; within
// single ones nothing is special. env: there is a variable of the environment,
// which only double quotes have.
func haproxyWords(s string) (words []string, env bool, err string) {
	var b strings.Builder
	inWord, quote := false, byte(0)
	flush := func() {
		if inWord {
			words = append(words, b.String())
			b.Reset()
			inWord = false
		}
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == quote && quote != 0:
			quote = 0
			continue
		case quote == '\'':
		case quote == 0 && (c == '"' || c == '\''):
			quote, inWord = c, true
			continue
		case c == '\\':
			n, text := haproxyEscape(s[i:])
			b.WriteString(text)
			inWord = true
			i += n - 1
			continue
		case quote == '"':
			env = env || c == '$'
		case c == '#':
			flush()
			return words, env, ""
		case strings.IndexByte(" \t\r\n", c) >= 0:
			flush()
			continue
		}
		b.WriteByte(c)
		inWord = true
	}
	if quote != 0 {
		return words, env, "opens a quote that is never closed"
	}
	flush()
	return words, env, ""
}

// haproxyEscape resolves the backslash at the start of s; n is how much it took.
func haproxyEscape(s string) (n int, text string) {
	if len(s) < 2 {
		return 1, `\`
	}
	switch c := s[1]; c {
	case 'n':
		return 2, "\n"
	case 'r':
		return 2, "\r"
	case 't':
		return 2, "\t"
	case ' ', '\\', '#', '"', '\'', '$':
		return 2, string(c)
	case 'x':
		if len(s) >= 4 {
			hi, lo := strings.IndexByte(hexDigits, s[2]|0x20), strings.IndexByte(hexDigits, s[3]|0x20)
			if hi >= 0 && lo >= 0 {
				return 4, string([]byte{byte(hi<<4 | lo)})
			}
		}
	}
	return 1, `\`
}

const hexDigits = "0123456789abcdef"

// readHAProxy splits a file into sections.
func (w *work) readHAProxy(file, src string) ([]*hsection, error) {
	var all []*hsection
	defaults := map[string]*hsection{}
	var lastDefaults, current *hsection
	skipped := 0 // depth of .if within which lines are passed over
	number := 0
	for line := range strings.Lines(src) {
		number++
		at := place{file, number}
		words, env, bad := haproxyWords(line)
		if bad != "" {
			return nil, fail(at, strings.TrimSpace(line), bad)
		}
		if len(words) == 0 {
			continue
		}
		l := hline{words, at, env}
		if strings.HasPrefix(words[0], ".") {
			skipped = w.macro(l, skipped)
			continue
		}
		switch {
		case skipped > 0:
		case slices.Contains(sectionWords(), words[0]):
			current = &hsection{kind: words[0], name: l.word(1), at: at, byKey: map[string][]hline{}, from: lastDefaults}
			if from := slices.Index(words, "from"); from > 0 && from+1 < len(words) {
				if current.from = defaults[words[from+1]]; current.from == nil {
					w.say(at, l.String(), "no defaults of that name come before")
				}
				if from == 1 {
					current.name = ""
				}
			}
			if current.kind == "defaults" {
				lastDefaults = current
				defaults[current.name] = current
				if !slices.Contains(words, "from") {
					current.from = nil
				}
			}
			all = append(all, current)
		case current == nil:
			return nil, fail(at, l.String(), "stands before any section")
		case current.kind == "defaults" && len(current.lines) == maxDefaults:
			return nil, fail(current.at, current.kind, fmt.Sprintf("has more than %d lines, must have fewer", maxDefaults))
		default:
			current.lines = append(current.lines, l)
			current.byKey[l.key()] = append(current.byKey[l.key()], l)
		}
	}
	return all, nil
}

// macro handles a line that begins with a dot; it returns the depth of .if.
func (w *work) macro(l hline, depth int) int {
	switch l.words[0] {
	case ".if":
		if depth == 0 {
			w.say(l.at, l.String(), "conditions of HAProxy's file aren't evaluated: what is in it up to .endif isn't carried over")
		}
		return depth + 1
	case ".endif":
		return max(depth-1, 0)
	case ".elif", ".else":
		return depth
	}
	w.say(l.at, l.String(), "has no counterpart in sluice")
	return depth
}
