// SPDX-License-Identifier: Apache-2.0

package result

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Cuts is what became of a sample's sessions with a contender that hands them
// over to the kernel.
type Cuts struct {
	Sessions int     `json:"sessions"`
	Cut      int     `json:"cut"`                // handed over
	Median   float64 `json:"median,omitempty"`   // bytes, both directions, that had passed the process before
	Most     float64 `json:"most,omitempty"`     // the same, of the session that took longest
	Exchange int     `json:"exchange,omitempty"` // bytes of a message and its answer; 0: no messages

	Reasons map[string]uint64 `json:"reasons,omitempty"` // sessions that could not be, by reason
}

// Cuts sums up a contender's samples; nil: it hands none over. The median is that
// of the samples' medians.
func (s *Series) Cuts(contender string) *Cuts {
	var all *Cuts
	var medians []float64
	for _, sample := range s.Samples {
		c := sample.Cuts
		if c == nil || sample.Error != "" || sample.Contender != contender {
			continue
		}
		if all == nil {
			all = &Cuts{Exchange: c.Exchange, Reasons: map[string]uint64{}}
		}
		all.Sessions += c.Sessions
		all.Cut += c.Cut
		all.Most = max(all.Most, c.Most)
		if c.Cut > 0 {
			medians = append(medians, c.Median)
		}
		for reason, n := range c.Reasons {
			all.Reasons[reason] += n
		}
	}
	if len(medians) > 0 {
		all.Median = Median(medians)
	}
	return all
}

// String is a remark.
func (c *Cuts) String() string {
	text := fmt.Sprintf("%d of %d sessions handed over", c.Cut, c.Sessions)
	if c.Cut > 0 {
		text += fmt.Sprintf(", after %s in the median, %s at most", c.amount(c.Median), c.amount(c.Most))
	}
	var reasons []string
	for _, name := range slices.Sorted(maps.Keys(c.Reasons)) {
		reasons = append(reasons, fmt.Sprintf("%s %d", name, c.Reasons[name]))
	}
	if len(reasons) > 0 {
		text += " (not: " + strings.Join(reasons, ", ") + ")"
	}
	return text
}

// amount is a number of bytes, in messages where there are such.
func (c *Cuts) amount(bytes float64) string {
	text := fmt.Sprintf("%.0f bytes", bytes)
	switch {
	case bytes >= 1<<20:
		text = fmt.Sprintf("%.1f MiB", bytes/(1<<20))
	case bytes >= 10<<10:
		text = fmt.Sprintf("%.1f KiB", bytes/(1<<10))
	}
	if c.Exchange > 0 {
		text += fmt.Sprintf(" (%.3g messages)", bytes/float64(c.Exchange))
	}
	return text
}
