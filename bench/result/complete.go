// SPDX-License-Identifier: Apache-2.0

package result

import (
	"fmt"
	"slices"
	"strings"
)

// Lacks are those of the named workloads that the run has not, or of which a
// sample could not be taken.
func (r *Run) Lacks(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		s := r.Find(name)
		return s != nil && len(s.Samples) > 0 && !slices.ContainsFunc(s.Samples, func(x Sample) bool { return x.Error != "" })
	})
}

// Complete puts the series of a later run in the place of the run's own, in the
// order of names, and notes that they are from another time.
func (r *Run) Complete(later *Run, names []string) {
	var added []string
	for _, s := range later.Series {
		r.Series = slices.DeleteFunc(r.Series, func(old *Series) bool { return old.Name == s.Name })
		r.Series = append(r.Series, s)
		added = append(added, s.Name)
	}
	slices.SortStableFunc(r.Series, func(a, b *Series) int { return slices.Index(names, a.Name) - slices.Index(names, b.Name) })
	// What said that these were left out holds no longer.
	r.Notes = slices.DeleteFunc(r.Notes, func(note string) bool {
		return slices.ContainsFunc(added, func(name string) bool { return strings.HasPrefix(note, name+" ") })
	})
	for _, note := range later.Notes {
		if !slices.Contains(r.Notes, note) {
			r.Notes = append(r.Notes, note)
		}
	}
	if c := later.Machine.Congestion; c != "" && c != r.Machine.Congestion {
		r.Notes = append(r.Notes, fmt.Sprintf("TCP congestion control was %s for what was measured later", c))
	}
	r.Notes = append(r.Notes, fmt.Sprintf("measured in a later run, of %s: %s", later.Commit, strings.Join(added, ", ")))
	r.Seconds += later.Seconds
}
