// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxDuration keeps deadlines far from the end of a 64-bit nanosecond clock.
const maxDuration = 10 * 365 * 24 * time.Hour

// decoder walks nodes and collects all errors; a value that is wrong leaves
// its default, so that the walk goes on.
type decoder struct {
	bad     []problem
	visited int
}

func (d *decoder) fail(pos Position, format string, args ...any) {
	d.bad = append(d.bad, problem{pos, fmt.Sprintf(format, args...)})
}

// visit counts a value and tells whether there may be more of them.
func (d *decoder) visit() bool {
	d.visited++
	return d.visited <= maxValues
}

// field is a key that a mapping may have.
type field struct {
	key  string
	read func(pair)
}

// notYet are words for what other load balancers do and sluice doesn't yet: they
// are refused as such, so that nobody takes them for mistyped.
func notYet() []string {
	return []string{
		"bind", "check", "checks", "health_check",
		"nat", "proxy_bind", "proxy_ssl", "quic", "sni", "source", "source_address", "srv", "ssl", "ssl_preread", "tls", "transparent", "udp",
	}
}

// fields reads a mapping: each known key once. what names it in messages. A
// missing value or an empty one is an empty mapping.
func (d *decoder) fields(n *node, what string, fields []field) {
	if n.kind == nullKind {
		return
	}
	if n.kind != mapKind {
		d.fail(n.pos, "%s is %s, must be a mapping with keys such as %s", what, describe(n), fields[0].key)
		return
	}
	first := make(map[string]Position, len(n.pairs))
	for _, p := range n.pairs {
		if !d.visit() {
			return
		}
		if at, twice := first[p.key]; twice {
			d.fail(p.keyPos, "key %s of %s is written twice, must be once: first at %d:%d", quote(p.key), what, at.Line, at.Column)
			continue
		}
		first[p.key] = p.keyPos
		i := slices.IndexFunc(fields, func(f field) bool { return f.key == p.key })
		switch {
		case i >= 0:
			fields[i].read(p)
		case slices.Contains(notYet(), p.key):
			d.fail(p.keyPos, "%q is not supported yet, must be left out of %s", p.key, what)
		default:
			keys := make([]string, len(fields))
			for i, f := range fields {
				keys[i] = f.key
			}
			d.fail(p.keyPos, "unknown key %s of %s%s", quote(p.key), what, hint(p.key, keys, ""))
		}
	}
}

// list reads each item of a list; a missing value is an empty list.
func (d *decoder) list(p pair, of string, read func(*node)) {
	if p.value.kind == nullKind {
		return
	}
	if p.value.kind != listKind {
		d.fail(p.value.pos, "%s is %s, must be a list of %s", p.key, describe(p.value), of)
		return
	}
	for _, item := range p.value.items {
		if !d.visit() {
			return
		}
		read(item)
	}
}

// text reads a scalar without tabs and line breaks. must says what would be right.
func (d *decoder) text(n *node, what, must string) (string, bool) {
	if n.kind != textKind || n.text == "" || strings.ContainsAny(n.text, "\n\t") {
		d.fail(n.pos, "%s is %s, must be %s", what, describe(n), must)
		return "", false
	}
	return n.text, true
}

// integer reads a whole number, in decimal and without quotes.
func (d *decoder) integer(p pair, least, most int, into *int) {
	must := fmt.Sprintf("a whole number from %d to %d", least, most)
	s, ok := d.text(p.value, p.key, must)
	if !ok {
		return
	}
	v, err := strconv.Atoi(s)
	switch {
	case p.value.quoted:
		d.fail(p.value.pos, "%s is %s in quotes, must be %s without quotes", p.key, quote(s), must)
	case err != nil || v < least || v > most || s != strconv.Itoa(v):
		d.fail(p.value.pos, "%s is %s, must be %s", p.key, quote(s), must)
	default:
		*into = v
	}
}

// duration reads a duration from least on; zero says what 0 means, or is empty
// when 0 is refused.
func (d *decoder) duration(p pair, zero string, least, most time.Duration, into *time.Duration) {
	must := "a duration such as 500ms, 30s or 1h30m"
	if zero != "" {
		must += ", 0s for " + zero
	}
	s, ok := d.text(p.value, p.key, must)
	if !ok {
		return
	}
	v, err := time.ParseDuration(s)
	switch {
	case err != nil:
		d.fail(p.value.pos, "%s is %s, must be %s", p.key, quote(s), must)
	case v == 0 && zero != "":
		*into = 0
	case v < least || v > most:
		from := "from " + short(least)
		if least == 1 {
			from = "more than 0s, up"
		}
		d.fail(p.value.pos, "%s is %s, must be %s to %s%s", p.key, quote(s), from, short(most), orZero(zero))
	default:
		*into = v
	}
}

func orZero(zero string) string {
	if zero == "" {
		return ""
	}
	return ", or 0s for " + zero
}

// boolean reads true or on, false or off.
func (d *decoder) boolean(p pair, into *bool) {
	on, ok := truth(p.value)
	if !ok {
		d.fail(p.value.pos, "%s is %s, must be on or off, or true or false", p.key, describe(p.value))
		return
	}
	*into = on
}

// truth is what a scalar says if it is one of the four words.
func truth(n *node) (on, ok bool) {
	if n.kind != textKind {
		return false, false
	}
	switch strings.ToLower(n.text) {
	case "true", "on":
		return true, true
	case "false", "off":
		return false, true
	}
	return false, false
}

// choice reads one of a few words.
func choice[T ~string](d *decoder, p pair, into *T, words ...T) {
	known := make([]string, len(words))
	for i, w := range words {
		known[i] = string(w)
	}
	s, ok := d.text(p.value, p.key, "one of "+strings.Join(known, ", "))
	switch {
	case !ok:
	case slices.Contains(known, s):
		*into = T(s)
	default:
		d.fail(p.value.pos, "%s is %s, must be one of %s", p.key, quote(s), strings.Join(known, ", "))
	}
}

// isOff tells whether a scalar says off, which some write as false.
func isOff(n *node) bool { return n.kind == textKind && (n.text == "off" || n.text == "false") }

// describe is a value as a message names it.
func describe(n *node) string {
	switch n.kind {
	case nullKind:
		return "empty"
	case listKind:
		return "a list"
	case mapKind:
		return "a mapping"
	}
	return quote(n.text)
}
