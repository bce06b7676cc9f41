// SPDX-License-Identifier: Apache-2.0

package config

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// hint is the end of a message about a name that isn't known: the nearest
// known one, or all of them. prefix is put before each name.
func hint(name string, known []string, prefix string) string {
	if near := nearest(name, known); near != "" {
		return ", did you mean " + prefix + near + "?"
	}
	return ", must be one of " + prefix + strings.Join(known, ", "+prefix)
}

// nearest returns the known name with the least edits, if they are few.
func nearest(name string, known []string) string {
	if len(name) > 64 {
		return ""
	}
	best, least := "", 3
	for _, k := range known {
		limit := min(least, len(k)/2+1)
		if d := Edits(strings.ToLower(name), k); d < limit {
			best, least = k, d
		}
	}
	return best
}

// Edits counts the edits between two short words: insertions, deletions,
// substitutions and swaps of neighbours. What suggests a word by it, here and
// on the command line, takes few enough for a slip of the hand.
func Edits(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}

// clip shortens what a message quotes from the file.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "..."
}

// quote is clip in double quotes, with what isn't printable escaped.
func quote(s string) string { return strconv.Quote(clip(s)) }
