// SPDX-License-Identifier: Apache-2.0

package importer

import "strings"

// skipLua passes over the code of a *_by_lua_block, whose opening brace has
// been read, up to and with its closing brace. Braces in Lua's strings and
// comments don't count.
func (l *lexer) skipLua(open place) *Error {
	depth := 1
	for l.pos < len(l.src) {
		rest := l.src[l.pos:]
		switch c := rest[0]; {
		case c == '{':
			depth++
		case c == '}':
			if depth--; depth == 0 {
				l.pos++
				l.afterLine = l.line
				return nil
			}
		case c == '"' || c == '\'':
			l.pass(luaString(rest))
			continue
		case strings.HasPrefix(rest, "--"):
			if n := luaLong(rest[2:]); n > 0 {
				l.pass(2 + n)
			} else {
				l.pass(lineEnd(rest))
			}
			continue
		case c == '[':
			if n := luaLong(rest); n > 0 {
				l.pass(n)
				continue
			}
		}
		l.pass(1)
	}
	return fail(open, "a block of Lua", "opens here and is never closed")
}

// pass goes on by n bytes, or to the end.
func (l *lexer) pass(n int) {
	n = min(n, len(l.src)-l.pos)
	l.line += strings.Count(l.src[l.pos:l.pos+n], "\n")
	l.pos += n
}

// luaString is the length of the short string at the start of s.
func luaString(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case s[0], '\n':
			return i + 1
		}
	}
	return len(s)
}

// luaLong is the length of the long bracket at the start of s, such as
// [==[ ... ]==], or 0 if there is none.
func luaLong(s string) int {
	if !strings.HasPrefix(s, "[") {
		return 0
	}
	level := len(s[1:]) - len(strings.TrimLeft(s[1:], "="))
	if !strings.HasPrefix(s[1+level:], "[") {
		return 0
	}
	end := strings.Index(s[2+level:], "]"+strings.Repeat("=", level)+"]")
	if end < 0 {
		return len(s)
	}
	return 2 + level + end + 2 + level
}
