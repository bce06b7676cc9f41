// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// words is a tree as text: name, arguments, and blocks in braces.
func words(list []*directive) string {
	var b strings.Builder
	for _, d := range list {
		fmt.Fprintf(&b, "%d:%q", d.at.line, append([]string{d.name}, d.args...))
		if d.braced {
			b.WriteString("{" + words(d.block) + "}")
		}
	}
	return b.String()
}

// Words are split as nginx's ngx_conf_read_token splits them.
func TestNginxWords(t *testing.T) {
	for src, want := range map[string]string{
		"a b c;":                        `1:["a" "b" "c"]`,
		"a\tb\r\n  c ;\r\nd;":           `1:["a" "b" "c"]3:["d"]`,
		"a # b;\nc;":                    `1:["a" "c"]`,
		"a b#c;":                        `1:["a" "b#c"]`,
		`a "b c" 'd "e"';`:              `1:["a" "b c" "d \"e\""]`,
		`a b"c;`:                        `1:["a" "b\"c"]`,
		`a "x\\";b "\"" '\'' "\n\t\z";`: `1:["a" "x\\"]1:["b" "\"" "'" "\n\t\\z"]`,
		`a b\;c \{ \ d;`:                `1:["a" "b\\;c" "\\{" "\\ d"]`,
		"a ${b}c $d{e;}":                `1:["a" "${b}c" "$d"]{1:["e"]}`,
		"a ${b;}":                       `1:["a" "${b"]`,
		"a{b;c{}}":                      `1:["a"]{1:["b"]1:["c"]{}}`,
		"a b}c;":                        `1:["a" "b}c"]`,
		"a `b;":                         "1:[\"a\" \"`b\"]",
		"a \x00;b;":                     `1:["a" "\x00"]1:["b"]`,
		"a 'b\nc'\nd;e;":                `1:["a" "b\nc" "d"]3:["e"]`,
		"'a' b;":                        `1:["a" "b"]`,
		"":                              "",
		"# nothing":                     "",
		"x_by_lua_block { if #t > 0 then s = '}' .. \"}\" .. [[}]] end } a;": `1:["x_by_lua_block"]{}1:["a"]`,
		"x_by_lua_block {\n-- }\n--[==[ } ]]\n]==] t = {a = {}}\n}\na;":      `1:["x_by_lua_block"]{}6:["a"]`,
		"set_by_lua_block $x { return '\\'}' } a;":                           `1:["set_by_lua_block" "$x"]{}1:["a"]`,
		strings.Repeat("a{", maxDepth-1) + strings.Repeat("}", maxDepth-1):   strings.Repeat(`1:["a"]{`, maxDepth-1) + strings.Repeat("}", maxDepth-1),
	} {
		got, err := parseNginx("f", src, nil)
		if src == "a ${b;}" { // nginx's braces of a variable needn't close, so this is a } too many
			if err == nil {
				t.Errorf("%q accepted", src)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", src, err)
			continue
		}
		if diff := cmp.Diff(want, words(got)); diff != "" {
			t.Errorf("%q: %s", src, diff)
		}
	}
}

// What nginx refuses is refused with the place where it went wrong.
func TestNginxErrors(t *testing.T) {
	for src, want := range map[string]string{
		"a b\n;\n;":                  `f:3: ";": stands where a directive must begin`,
		"{":                          `f:1: "{": stands where a directive must begin`,
		"a;\n}":                      `f:2: "}": closes nothing that is open`,
		"stream {\n\ta;\n":           `f:1: stream: its "{" is never closed by "}"`,
		"stream {\n a b\n c\n}\n":    `f:2: a b c: has no ";" before the "}" of line 4`,
		"a b\nc\n":                   `f:1: a b c: has no ";" before the end of the file`,
		"a;\nb \"c\nd;\n":            `f:2: a quote: opens here and is never closed`,
		"a 'b'c;":                    `f:1: 'c': comes right behind a closing quote, where a blank or ";" must be`,
		"a\n{ x_by_lua_block { { }":  `f:2: a block of Lua: opens here and is never closed`,
		"x_by_lua_block { [=[ ]] }":  `f:1: a block of Lua: opens here and is never closed`,
		"x_by_lua_block { \"a\\":     `f:1: a block of Lua: opens here and is never closed`,
		strings.Repeat("a{", 100000): `f:1: a: more than 64 blocks within each other`,
	} {
		_, err := parseNginx("f", src, nil)
		if err == nil || err.Error() != want {
			t.Errorf("%.60q: %v, want %s", src, err, want)
		}
	}
}

// Prose is passed over only where it can't be anything else.
func TestProse(t *testing.T) {
	for src, want := range map[string]struct{ tree, told string }{
		"a;为 b\nlisten 1;":                 {`1:["a"]2:["listen" "1"]`, "1 为 b"},
		"a; for reads\nlisten 1;}":         {"", "1 for reads"},
		"a {为\n b;更\n} 好\n":                {`1:["a"]{2:["b"]}`, "1 为|2 更|3 好"},
		"a; # x\n为 b;":                     {`1:["a"]2:["为" "b"]`, ""},
		"a; listen\n 1;":                   {`1:["a"]1:["listen" "1"]`, ""},
		"a; 为 b # c; d\ne;":                {`1:["a"]2:["e"]`, "1 为 b"},
		"a; 为 b; c;":                       {`1:["a"]1:["为" "b"]1:["c"]`, ""},
		"\n\na; b":                         {`3:["a"]`, "3 b"},
		"a; proxy_pass\n\tb; listen\n\t1;": {`1:["a"]1:["proxy_pass" "b"]2:["listen" "1"]`, ""},
	} {
		var told []string
		got, err := parseNginx("f", src, &prose{nginxWords(), func(at place, s string) {
			told = append(told, fmt.Sprintf("%d %s", at.line, s))
		}})
		if strings.Join(told, "|") != want.told || err == nil && words(got) != want.tree || err != nil && want.tree != "" {
			t.Errorf("%q: %s %q, %v; want %s %q", src, words(got), told, err, want.tree, want.told)
		}
	}
}
