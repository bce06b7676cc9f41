// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

type kind int

const (
	nullKind kind = iota
	textKind
	listKind
	mapKind
)

// node is a value of the file. Scalars are kept as they are written: what they
// mean depends on the key, so that `off`, `1.0` or `:80` need no quotes.
type node struct {
	kind   kind
	text   string // of textKind
	quoted bool   // in quotes or as a block, so not a number
	pos    Position
	items  []*node // of listKind
	pairs  []pair  // of mapKind, in file order, merged ones last
}

// pair is a key with its value.
type pair struct {
	key    string
	keyPos Position
	value  *node
}

// converter makes nodes of a syntax tree: it resolves aliases and merge keys
// and refuses what has no place in this file. Aliases share their node, so
// conversion is linear in the file but for merged pairs, which are counted.
type converter struct {
	anchors map[string]*node
	merged  int
	bad     []problem
}

func (c *converter) fail(pos Position, format string, args ...any) {
	c.bad = append(c.bad, problem{pos, fmt.Sprintf(format, args...)})
}

// value converts one node; at is where a value that isn't written would be.
func (c *converter) value(n ast.Node, at Position) *node {
	switch n := n.(type) {
	case nil, *ast.NullNode:
		return &node{pos: at}
	case *ast.StringNode:
		quoted := n.Token.Type == token.SingleQuoteType || n.Token.Type == token.DoubleQuoteType
		return c.scalar(n.Value, quoted, place(n.Token))
	case *ast.LiteralNode:
		return c.scalar(n.Value.Value, true, place(n.Start))
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return c.scalar(n.GetToken().Value, false, place(n.GetToken()))
	case *ast.SequenceNode:
		list := &node{kind: listKind, pos: place(n.Start)}
		for _, item := range n.Values {
			at := list.pos
			if null, ok := item.(*ast.NullNode); ok {
				at = place(null.Token)
			}
			list.items = append(list.items, c.value(item, at))
		}
		return list
	case *ast.MappingNode:
		return c.mapping(n.Values, n)
	case *ast.MappingValueNode:
		return c.mapping([]*ast.MappingValueNode{n}, nil)
	case *ast.AnchorNode:
		v := c.value(n.Value, place(n.Start))
		c.anchors[n.Name.GetToken().Value] = v // only now: an alias within its own anchor finds nothing
		return v
	case *ast.AliasNode:
		name := n.Value.GetToken().Value
		if v, ok := c.anchors[name]; ok {
			return v
		}
		c.fail(place(n.Start), "alias *%s has no anchor, must come after &%s", clip(name), clip(name))
		return &node{pos: place(n.Start)}
	case *ast.TagNode:
		c.fail(place(n.Start), "YAML tag %s is not supported, must be left out", quote(n.Start.Value))
		return c.value(n.Value, place(n.Start))
	}
	c.fail(place(n.GetToken()), "YAML %s is not supported here, must be a value, a list or a mapping", n.Type())
	return &node{pos: place(n.GetToken())}
}

func (c *converter) scalar(text string, quoted bool, pos Position) *node {
	for _, r := range text {
		if isControl(r) && r != '\n' && r != '\t' {
			c.fail(pos, "control character %U in a value, must be text without control characters", r)
			break
		}
	}
	return &node{kind: textKind, text: text, quoted: quoted, pos: pos}
}

// mapping converts pairs; whole is nil if the mapping is a single pair.
func (c *converter) mapping(values []*ast.MappingValueNode, whole *ast.MappingNode) *node {
	m := &node{kind: mapKind, pos: Position{1, 1}}
	var merges []pair
	for i, v := range values {
		key, pos, merge := c.key(v.Key)
		if i == 0 {
			m.pos = pos
		}
		p := pair{key, pos, c.value(v.Value, pos)}
		if merge {
			merges = append(merges, p)
		} else {
			m.pairs = append(m.pairs, p)
		}
	}
	if whole != nil && whole.IsFlowStyle {
		m.pos = place(whole.Start)
	}
	for _, p := range merges {
		c.merge(m, p)
	}
	return m
}

func (c *converter) key(key ast.MapKeyNode) (text string, pos Position, merge bool) {
	switch k := key.(type) {
	case *ast.MergeKeyNode:
		return "<<", place(k.Token), true
	case *ast.StringNode:
		v := c.value(k, Position{})
		return v.text, v.pos, false
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return k.GetToken().Value, place(k.GetToken()), false
	}
	pos = place(key.GetToken())
	c.fail(pos, "a key of this form is not supported, must be a plain name")
	return "", pos, false
}

// merge adds the pairs of one or more mappings under the key <<, where a key
// that is there already wins.
func (c *converter) merge(m *node, p pair) {
	sources := []*node{p.value}
	if p.value.kind == listKind {
		sources = p.value.items
	}
	have := make(map[string]bool, len(m.pairs))
	for _, own := range m.pairs {
		have[own.key] = true
	}
	for _, source := range sources {
		if source.kind != mapKind {
			c.fail(p.keyPos, "merge key << of something else than a mapping, must be an alias of a mapping or a list of such")
			return
		}
		for _, add := range source.pairs {
			if c.merged++; c.merged > maxValues {
				return
			}
			if !have[add.key] {
				have[add.key] = true
				m.pairs = append(m.pairs, add)
			}
		}
	}
}
