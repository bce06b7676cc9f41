// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Bounds on what is given to the YAML parser, far beyond any real file: the
// parser recurses, and aliases multiply what a file says.
const (
	maxFileBytes = 4 << 20
	maxDepth     = 32      // nested lists and mappings; a real file has six
	maxKeys      = 10000   // of one mapping, for which the parser takes quadratic time
	maxValues    = 1 << 18 // visited, with aliases and merge keys expanded
)

// problem is an error before its file is known.
type problem struct {
	pos Position
	msg string
}

// checkText finds bytes that have no business in a text file. Tabs, line feeds
// and carriage returns before them are fine, and so is a byte order mark at the
// start, which the caller has taken off.
func checkText(data []byte) []problem {
	const most = 20 // a binary file has no use for more
	var found []problem
	pos := Position{1, 1}
	for i := 0; i < len(data) && len(found) < most; {
		r, n := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			found = append(found, problem{pos, fmt.Sprintf("byte 0x%02X is not UTF-8, must be UTF-8 text", data[i])})
		case r == '\r' && i+1 < len(data) && data[i+1] == '\n', r == '\t', r == '\n':
		case isControl(r):
			found = append(found, problem{pos, fmt.Sprintf("control character %U, must be text without control characters", r)})
		}
		pos.Column++
		if r == '\n' {
			pos = Position{pos.Line + 1, 1}
		}
		i += n
	}
	return found
}

// isControl covers C0, DEL, C1, and what YAML forbids or takes for a break.
func isControl(r rune) bool {
	return r < 0x20 || 0x7F <= r && r <= 0x9F || r == 0x2028 || r == 0x2029 || r == 0xFEFF || r == 0xFFFE || r == 0xFFFF
}

// parse gives the only document of a file, or nil for a file without content.
func parse(data []byte) (doc *ast.DocumentNode, bad []problem) {
	defer func() {
		if r := recover(); r != nil { // a fault of the parser must not take the service down in a reload
			doc, bad = nil, []problem{{Position{1, 1}, fmt.Sprintf("the YAML parser failed (%v), must be simpler YAML, see the last change", r)}}
		}
	}()
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if len(data) > maxFileBytes {
		return nil, []problem{{Position{1, 1}, fmt.Sprintf("the file has more than %d bytes, must be smaller", maxFileBytes)}}
	}
	if bad := checkText(data); bad != nil {
		return nil, bad
	}
	if json.Valid(data) { // JSON has tabs between its tokens only, where YAML would reject them
		data = bytes.ReplaceAll(data, []byte{'\t'}, []byte{' '})
	}
	tokens := rejoin(lexer.Tokenize(string(data)))
	if bad := checkShape(tokens); bad != nil {
		return nil, bad
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, []problem{syntaxProblem(err)}
	}
	for _, d := range file.Docs {
		switch {
		case doc != nil && d.Start != nil:
			return nil, []problem{{place(d.Start), "a second YAML document starts here, must be one document"}}
		case doc != nil:
			return nil, []problem{{Position{1, 1}, "more than one YAML document, must be one document"}}
		}
		if d.Body != nil && d.Body.Type() == ast.DirectiveType {
			return nil, []problem{{place(d.Body.GetToken()), "a YAML directive is not supported, must be left out"}}
		}
		doc = d
	}
	if doc == nil || doc.Body == nil {
		return nil, nil
	}
	return doc, nil
}

// level is a list or mapping in block style: where its entries begin, and how
// many keys it has.
type level struct{ column, keys int }

// checkShape finds nesting beyond maxDepth before the parser recurses into it: by
// brackets, by the columns at which entries of block style begin, and by
// anchors and tags before one value.
func checkShape(tokens token.Tokens) []problem {
	flow, chain := 0, 0
	var levels []level
	for i, t := range tokens {
		begin := 0
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			flow++
		case token.SequenceEndType, token.MappingEndType:
			flow--
		case token.SequenceEntryType, token.MappingKeyType:
			begin = t.Position.Column
		case token.MappingValueType: // an entry begins with its key
			begin = t.Position.Column
			if i > 0 && tokens[i-1].Position.Line == t.Position.Line {
				begin = tokens[i-1].Position.Column
			}
		}
		if begin > 0 && flow <= 0 {
			if levels = enter(levels, begin); t.Type == token.MappingValueType {
				levels[len(levels)-1].keys++
			}
			if levels[len(levels)-1].keys > maxKeys {
				return []problem{{place(t), fmt.Sprintf("more than %d keys in one mapping, must be fewer", maxKeys)}}
			}
		}
		switch {
		case t.Type == token.TagType || t.Type == token.AnchorType:
			chain++
		case i == 0 || tokens[i-1].Type != token.AnchorType: // else it is the anchor's name
			chain = 0
		}
		// A key and its entry's hyphen are two columns of one level.
		if flow > maxDepth || chain > maxDepth || len(levels) > 2*maxDepth {
			return []problem{{place(t), fmt.Sprintf("more than %d levels of nesting, must be fewer", maxDepth)}}
		}
	}
	return nil
}

// enter leaves the levels that begin further right than column, and adds one
// there if there is none.
func enter(levels []level, column int) []level {
	for len(levels) > 0 && levels[len(levels)-1].column > column {
		levels = levels[:len(levels)-1]
	}
	if len(levels) > 0 && levels[len(levels)-1].column == column {
		return levels
	}
	return append(levels, level{column: column})
}

func syntaxProblem(err error) problem {
	var at interface {
		GetToken() *token.Token
		GetMessage() string
	}
	if !errors.As(err, &at) {
		return problem{Position{1, 1}, "bad YAML syntax: " + clip(err.Error()) + ", must be valid YAML"}
	}
	return problem{place(at.GetToken()), "bad YAML syntax: " + at.GetMessage() + ", must be valid YAML: check indentation, quotes and brackets here"}
}

// place is where a token begins.
func place(t *token.Token) Position {
	if t == nil || t.Position == nil {
		return Position{1, 1}
	}
	return Position{max(t.Position.Line, 1), max(t.Position.Column, 1)}
}
