// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestFit: a table gives up its least important columns, and cuts the last of
// them short where that is enough.
func TestFit(t *testing.T) {
	make := func() *table {
		t := newTable("NAME", "LONG", "NUMBER")
		t.row("a", "0123456789", 1)
		t.row("b\x1b[2J", "", 22)
		return t
	}
	for _, c := range []struct {
		width int
		want  string
	}{
		{0, "NAME   LONG        NUMBER|a      0123456789  1|b?[2J  -           22"},
		{25, "NAME   LONG        NUMBER|a      0123456789  1|b?[2J  -           22"},
		{20, "NAME   LONG   NUMBER|a      0123\u2026  1|b?[2J  -      22"},
		{19, "NAME   NUMBER|a      1|b?[2J  22"},
		{13, "NAME   NUMBER|a      1|b?[2J  22"},
		{12, "NAME|a|b?[2J"},
		{1, "NAME|a|b?[2J"}, // what matters stays, whatever the width
	} {
		table := make()
		table.fit(c.width, "LONG", "NUMBER")
		var out bytes.Buffer
		p := &printer{out: &out}
		p.table(table)
		got := strings.ReplaceAll(strings.TrimSpace(out.String()), "\n", "|")
		if got != c.want {
			t.Errorf("width %d:\n%s, want\n%s", c.width, got, c.want)
		}
	}
}

// TestRenderFits: what people see fits 80 columns, and piped output is whole.
func TestRenderFits(t *testing.T) {
	s := sampleSnapshot()
	s.Listeners[0].Reason = strings.Repeat("a reason that goes on ", 5)
	s.Pools[0].Backends[0].Address = "[fd00:1234:5678:9abc:def0:1234:5678:9abc]:65535"
	flows := []Flow{{ID: 1 << 40, Listener: "front", Pool: "readers", Backend: "[fd00::1]:65535", Client: "[fd00::2]:65535", Datapath: "relay",
		Reason: "it has not had the traffic", AgeSeconds: 1e6, BytesReceived: 1 << 50}}
	for _, width := range []int{0, 80, 132} {
		var out bytes.Buffer
		if err := RenderStatus(&out, s, width); err != nil {
			t.Fatal(err)
		}
		if err := RenderFlows(&out, flows, width); err != nil {
			t.Fatal(err)
		}
		widest := 0
		for line := range strings.Lines(out.String()) {
			widest = max(widest, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")))
		}
		whole := strings.Contains(out.String(), s.Listeners[0].Reason[:100]) && strings.Contains(out.String(), "BALANCE")
		if width > 0 && widest > width || (width == 0) != whole && width != 132 {
			t.Errorf("width %d: the widest line has %d, whole: %v\n%s", width, widest, whole, out.String())
		}
		for _, must := range []string{"LISTENER", "DATAPATH", "BACKEND", "STATE", "CLIENT", s.Pools[0].Backends[0].Address, flows[0].Client} {
			if !strings.Contains(out.String(), must) {
				t.Errorf("width %d: %s isn't shown", width, must)
			}
		}
	}
}
