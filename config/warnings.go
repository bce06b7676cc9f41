// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Warning is what is valid in a file and surely not meant, and where.
type Warning struct {
	File         string // as given by the user
	Line, Column int    // from 1. Columns count characters
	Msg          string
}

// String is the warning as a line of its own, as an Error with a word before
// its message.
func (w Warning) String() string {
	return fmt.Sprintf("%s:%d:%d: warning: %s", w.File, w.Line, w.Column, w.Msg)
}

// CheckFile is ReadFile for who wants to know what else is odd: with a
// configuration come its warnings, in the order of the file. A file of defaults
// has none. Its error is Errors.
func CheckFile(path string) (*Config, []Warning, error) {
	data, err := read(path)
	if err != nil {
		c, err := ReadFile(path) // which words it
		return c, nil, err
	}
	return Check(path, data)
}

// Check is Load with warnings; file is only its name in messages.
func Check(file string, data []byte) (*Config, []Warning, error) {
	c, err := Load(file, data)
	if err != nil {
		return nil, nil, err
	}
	doc, _ := parse(data) // Load has read it
	conv := converter{anchors: map[string]*node{}}
	w := &warner{file: file, c: c, root: conv.value(doc.Body, Position{1, 1})}
	w.pools()
	w.listeners()
	return c, w.sorted(), nil
}

// warner collects warnings: of a configuration, and of how it is written where
// that isn't seen in the configuration any more.
type warner struct {
	file string
	c    *Config
	root *node
	all  []Warning
}

func (w *warner) warn(at Position, format string, args ...any) {
	w.all = append(w.all, Warning{w.file, at.Line, at.Column, fmt.Sprintf(format, args...)})
}

// sorted puts the warnings in the order of the file and drops repetitions,
// which come from an anchor that is used in several places.
func (w *warner) sorted() []Warning {
	slices.SortStableFunc(w.all, func(a, b Warning) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), strings.Compare(a.Msg, b.Msg))
	})
	return slices.Compact(w.all)
}

// value is what stands under these keys, or an empty node.
func (n *node) value(keys ...string) *node {
	for _, key := range keys {
		p := n.get(key)
		if p == nil {
			return &node{}
		}
		n = p.value
	}
	return n
}

// item is an item of a list, or an empty node.
func (n *node) item(i int) *node {
	if i < len(n.items) {
		return n.items[i]
	}
	return &node{}
}
