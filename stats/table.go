// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	gap      = "  " // between two columns
	ellipsis = "\u2026"
)

// table is text in columns, the first line their names.
type table struct {
	lines [][]string
	width []int // of each column, in characters
}

func newTable(names ...string) *table {
	t := &table{width: make([]int, len(names))}
	cells := make([]any, len(names))
	for i, name := range names {
		cells[i] = name
	}
	t.row(cells...)
	return t
}

func (t *table) row(cells ...any) {
	texts := make([]string, len(cells))
	for i, c := range cells {
		if texts[i] = printable(fmt.Sprint(c)); texts[i] == "" {
			texts[i] = "-"
		}
		t.width[i] = max(t.width[i], utf8.RuneCountInString(texts[i]))
	}
	t.lines = append(t.lines, texts)
}

// fit makes the table no wider than limit, if it is one, by giving up columns in
// the order of least, the least important first. The last one is only cut
// shorter if that is enough and its name still fits.
func (t *table) fit(limit int, least ...string) {
	if limit <= 0 {
		return
	}
	for _, name := range least {
		over := t.total() - limit
		if over <= 0 {
			return
		}
		i := slices.Index(t.lines[0], name)
		if i < 0 {
			continue
		}
		if left := t.width[i] - over; left > len(name) {
			t.width[i] = left
			return
		}
		t.width = slices.Delete(t.width, i, i+1)
		for l := range t.lines {
			t.lines[l] = slices.Delete(t.lines[l], i, i+1)
		}
	}
}

// total is how wide the table is.
func (t *table) total() int {
	n := len(gap) * (len(t.width) - 1)
	for _, w := range t.width {
		n += w
	}
	return n
}

// text is a line of the table.
func (t *table) text(line []string) string {
	var b strings.Builder
	for i, cell := range line {
		n := utf8.RuneCountInString(cell)
		if n > t.width[i] {
			cell = string([]rune(cell)[:t.width[i]-1]) + ellipsis
			n = t.width[i]
		}
		b.WriteString(cell)
		if i < len(line)-1 {
			b.WriteString(strings.Repeat(" ", t.width[i]-n) + gap)
		}
	}
	return b.String()
}

// printer writes lines and remembers the first error.
type printer struct {
	out io.Writer
	err error
}

func (p *printer) text(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintln(p.out, printable(fmt.Sprintf(format, args...)))
	}
}

func (p *printer) table(t *table) {
	for _, line := range t.lines {
		if p.err == nil {
			_, p.err = fmt.Fprintln(p.out, t.text(line))
		}
	}
}
