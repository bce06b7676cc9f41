// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"fmt"
	"strings"
)

// maxDepth is how deep blocks may nest.
const maxDepth = 64

// directive is a statement of nginx: a name, arguments, and a block if braces
// follow.
type directive struct {
	name   string
	args   []string
	braced bool
	block  []*directive
	at     place
	order  int // within its block, includes in their place
}

// String is the directive as a message names it.
func (d *directive) String() string {
	return strings.Join(append([]string{d.name}, d.args...), " ")
}

// arg is the argument i, or nothing.
func (d *directive) arg(i int) string {
	if i >= 0 && i < len(d.args) {
		return d.args[i]
	}
	return ""
}

// lexer splits nginx's configuration into words as ngx_conf_read_token does
// (src/core/ngx_conf_file.c): quotes only begin a word, a backslash takes the
// next character along, `${` is no block.
type lexer struct {
	src  string
	pos  int
	line int
	file string
	// afterLine is the line of the last `;`, `{` or `}`.
	afterLine int
}

// The kinds of tokens; the others are the characters themselves.
const (
	endOfFile = 0
	aWord     = 'w'
)

type token struct {
	kind byte // aWord, ';', '{', '}' or endOfFile
	text string
	line int
}

func (l *lexer) here() place { return place{l.file, l.line} }

// next returns the next token.
func (l *lexer) next() (token, *Error) {
	l.skipBlank()
	if l.pos == len(l.src) {
		return token{kind: endOfFile, line: l.line}, nil
	}
	switch c := l.src[l.pos]; c {
	case ';', '{', '}':
		l.pos++
		l.afterLine = l.line
		return token{kind: c, text: string(c), line: l.line}, nil
	case '"', '\'':
		return l.quoted(c)
	}
	return l.plain(), nil
}

// skipBlank passes over blanks and comments.
func (l *lexer) skipBlank() {
	for ; l.pos < len(l.src); l.pos++ {
		switch l.src[l.pos] {
		case '\n':
			l.line++
		case ' ', '\t', '\r':
		case '#':
			l.pos += lineEnd(l.src[l.pos:]) - 1
		default:
			return
		}
	}
}

// lineEnd is how far the end of the line is.
func lineEnd(s string) int {
	if n := strings.IndexByte(s, '\n'); n >= 0 {
		return n
	}
	return len(s)
}

// plain reads a word without quotes.
func (l *lexer) plain() token {
	start, line := l.pos, l.line
	for variable := false; l.pos < len(l.src); l.pos++ {
		c := l.src[l.pos]
		switch {
		case c == '{' && variable:
			variable = false
			continue
		case strings.IndexByte(" \t\r\n;{", c) >= 0:
			return token{aWord, unescape(l.src[start:l.pos]), line}
		case c == '\\':
			l.skipEscaped()
		}
		variable = c == '$'
	}
	return token{aWord, unescape(l.src[start:]), line}
}

// skipEscaped goes on to the character behind a backslash.
func (l *lexer) skipEscaped() {
	if l.pos+1 < len(l.src) {
		l.pos++
		if l.src[l.pos] == '\n' {
			l.line++
		}
	}
}

// quoted reads a word in quotes, behind which a blank, `;`, `{` or `)` must follow.
func (l *lexer) quoted(quote byte) (token, *Error) {
	line := l.line
	l.pos++
	for start := l.pos; l.pos < len(l.src); l.pos++ {
		switch l.src[l.pos] {
		case '\n':
			l.line++
		case '\\':
			l.skipEscaped()
		case quote:
			t := token{aWord, unescape(l.src[start:l.pos]), line}
			l.pos++
			if l.pos < len(l.src) && strings.IndexByte(" \t\r\n;{)", l.src[l.pos]) < 0 {
				return t, fail(l.here(), fmt.Sprintf("%q", l.src[l.pos]), `comes right behind a closing quote, where a blank or ";" must be`)
			}
			return t, nil
		}
	}
	return token{}, fail(place{l.file, line}, "a quote", "opens here and is never closed")
}

// unescape resolves what nginx does: \" \' \\ \t \r \n; other backslashes stay.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			if at := strings.IndexByte(`"'\trn`, s[i+1]); at >= 0 {
				b.WriteByte("\"'\\\t\r\n"[at])
				i++
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
