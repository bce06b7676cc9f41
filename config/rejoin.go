// SPDX-License-Identifier: Apache-2.0

package config

import (
	"unicode/utf8"

	"github.com/goccy/go-yaml/token"
)

// rejoin undoes what the lexer does to an unquoted `host:80` or `::/0` in a list
// within braces: it takes the colon for a key's end, where YAML wants a space
// after it. Without such a colon the tokens come back as they are.
func rejoin(tokens token.Tokens) token.Tokens {
	var out token.Tokens
	flow, changed := 0, false
	for i := 0; i < len(tokens); i++ {
		t := tokens[i]
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			flow++
		case token.SequenceEndType, token.MappingEndType:
			flow--
		case token.MappingValueType:
			if flow <= 0 || i == 0 || i+1 == len(tokens) || !plainToken(tokens[i+1]) || !touches(t, tokens[i+1]) {
				break
			}
			before, after := tokens[i-1], tokens[i+1]
			switch {
			case plainToken(before) && touches(before, t):
				out = out[:len(out)-1]
				t = token.New(before.Value+":"+after.Value, before.Origin+":"+after.Origin, before.Position)
			case before.Type == token.SequenceStartType || before.Type == token.CollectEntryType:
				t = token.New(":"+after.Value, ":"+after.Origin, t.Position)
			default:
				out.Add(t)
				continue
			}
			changed = true
			i++
		}
		out.Add(t)
	}
	if !changed {
		return tokens
	}
	return out
}

// plainToken tells scalars without quotes.
func plainToken(t *token.Token) bool {
	return t.Indicator == token.NotIndicator && t.Type != token.SingleQuoteType && t.Type != token.DoubleQuoteType &&
		t.Type != token.CommentType && t.Type != token.InvalidType && t.Value != ""
}

// touches tells whether b follows a without a gap.
func touches(a, b *token.Token) bool {
	return a.Position.Line == b.Position.Line && a.Position.Column+utf8.RuneCountInString(a.Value) == b.Position.Column
}
