// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// RenderStatus writes a snapshot as tables for people.
func RenderStatus(w io.Writer, s *Snapshot) error {
	state := "ok"
	if !s.Config.OK {
		state = "last load refused: " + s.Config.Error
	}
	t := newTable(w)
	t.text("sluice %s, kernel %s, pid %d, up %s", s.Version, s.Kernel, s.PID, seconds(s.UptimeSeconds))
	t.text("configuration %s, loaded %s, %s", s.Config.File, s.Config.LoadedAt.Format(time.RFC3339), state)
	t.text("access log: %d lines, %d dropped", s.AccessLog.Lines, s.AccessLog.Dropped)
	t.text("")
	t.row("LISTENER", "ADDRESS", "POOL", "PROTOCOL", "DATAPATH", "ACTIVE", "TOTAL", "RECEIVED", "SENT", "REASON")
	for _, l := range s.Listeners {
		t.row(l.Name, strings.Join(l.Listen, " "), l.Pool, l.Protocol, l.Datapath, l.Active, l.Total,
			size(l.BytesReceived), size(l.BytesSent), l.Reason)
	}
	t.flush()
	t.text("")
	t.row("POOL", "BALANCE", "BACKEND", "STATE", "WEIGHT", "BACKUP", "ACTIVE", "TOTAL", "FAILED", "RECEIVED", "SENT", "CONNECT")
	for _, p := range s.Pools {
		for _, b := range p.Backends {
			backup, connect := "no", "-"
			if b.Backup {
				backup = "yes"
			}
			if b.Total > 0 {
				connect = time.Duration(b.ConnectSeconds / float64(b.Total) * float64(time.Second)).
					Round(time.Microsecond).String()
			}
			t.row(p.Name, p.Balance, b.Address, b.State, b.Weight, backup, b.Active, b.Total, b.Failed,
				size(b.BytesReceived), size(b.BytesSent), connect)
		}
	}
	t.flush()
	return t.err
}

// RenderFlows writes live sessions as a table for people.
func RenderFlows(w io.Writer, flows []Flow) error {
	t := newTable(w)
	t.row("ID", "LISTENER", "POOL", "BACKEND", "CLIENT", "DATAPATH", "AGE", "IDLE", "RECEIVED", "SENT")
	for _, f := range flows {
		t.row(f.ID, f.Listener, f.Pool, f.Backend, f.Client, f.Datapath, seconds(f.AgeSeconds), seconds(f.IdleSeconds),
			size(f.BytesReceived), size(f.BytesSent))
	}
	t.flush()
	return t.err
}

// table remembers the first error.
type table struct {
	out  io.Writer
	tabs *tabwriter.Writer
	err  error
}

func newTable(w io.Writer) *table {
	return &table{out: w, tabs: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
}

// text writes a line outside of a table, which is to be flushed before.
func (t *table) text(format string, args ...any) {
	if t.err == nil {
		_, t.err = fmt.Fprintln(t.out, printable(fmt.Sprintf(format, args...)))
	}
}

func (t *table) row(cells ...any) {
	texts := make([]string, len(cells))
	for i, c := range cells {
		if texts[i] = printable(fmt.Sprint(c)); texts[i] == "" {
			texts[i] = "-"
		}
	}
	if t.err == nil {
		_, t.err = fmt.Fprintln(t.tabs, strings.Join(texts, "\t"))
	}
}

func (t *table) flush() {
	if err := t.tabs.Flush(); t.err == nil {
		t.err = err
	}
}

// printable keeps what could steer a terminal out of one.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(100 * time.Millisecond).String()
}

// size writes bytes with a binary unit: 999 B, 1.5 KiB.
func size(n uint64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n)/1024, 0
	for f >= 1024 && unit < 5 {
		f /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", f, "KMGTPE"[unit])
}
