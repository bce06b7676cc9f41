// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
)

// RenderStatus writes a snapshot as tables for people, no line of a table wider
// than width; 0: as wide as it is.
func RenderStatus(w io.Writer, s *Snapshot, width int) error {
	state := "ok"
	if !s.Config.OK {
		state = "last load refused: " + s.Config.Error
	}
	p := &printer{out: w}
	p.text("sluice %s, kernel %s, pid %d, up %s", s.Version, s.Kernel, s.PID, seconds(s.UptimeSeconds))
	p.text("configuration %s, loaded %s, %s", s.Config.File, s.Config.LoadedAt.Format(time.RFC3339), state)
	p.text("access log: %d lines, %d dropped", s.AccessLog.Lines, s.AccessLog.Dropped)
	p.text("")
	t := newTable("LISTENER", "ADDRESS", "POOL", "PROTOCOL", "DATAPATH", "ACTIVE", "TOTAL", "RECEIVED", "SENT", "REASON")
	for _, l := range s.Listeners {
		t.row(l.Name, strings.Join(l.Listen, " "), l.Pool, l.Protocol, l.Datapath, l.Active, l.Total,
			size(l.BytesReceived), size(l.BytesSent), l.Reason)
	}
	t.fit(width, "REASON", "PROTOCOL", "POOL", "TOTAL", "SENT", "RECEIVED", "ADDRESS")
	p.table(t)
	p.text("")
	p.fallbacks(s, width)
	t = newTable("POOL", "BALANCE", "BACKEND", "STATE", "WEIGHT", "BACKUP", "ACTIVE", "TOTAL", "FAILED", "RECEIVED", "SENT", "CONNECT")
	for _, pool := range s.Pools {
		for _, b := range pool.Backends {
			backup, connect := "no", "-"
			if b.Backup {
				backup = "yes"
			}
			if b.Total > 0 {
				connect = time.Duration(b.ConnectSeconds / float64(b.Total) * float64(time.Second)).
					Round(time.Microsecond).String()
			}
			t.row(pool.Name, pool.Balance, b.Address, b.State, b.Weight, backup, b.Active, b.Total, b.Failed,
				size(b.BytesReceived), size(b.BytesSent), connect)
		}
	}
	t.fit(width, "BALANCE", "BACKUP", "CONNECT", "WEIGHT", "SENT", "RECEIVED", "TOTAL", "FAILED", "POOL")
	p.table(t)
	return p.err
}

// fallbacks writes how many sessions had to make do with a lower datapath, and why,
// where there are any.
func (p *printer) fallbacks(s *Snapshot, width int) {
	t, any := newTable("LISTENER", "FALLBACK", "SESSIONS"), false
	for _, l := range s.Listeners {
		for _, reason := range slices.Sorted(maps.Keys(l.Fallbacks)) {
			t.row(l.Name, reason, l.Fallbacks[reason])
			any = true
		}
	}
	if any {
		t.fit(width)
		p.table(t)
		p.text("")
	}
}

// RenderFlows writes live sessions as a table for people, no wider than width;
// 0: as wide as it is.
func RenderFlows(w io.Writer, flows []Flow, width int) error {
	t := newTable("ID", "LISTENER", "POOL", "BACKEND", "CLIENT", "DATAPATH", "AGE", "IDLE", "RECEIVED", "SENT", "REASON")
	for _, f := range flows {
		t.row(f.ID, f.Listener, f.Pool, f.Backend, f.Client, f.Datapath, seconds(f.AgeSeconds), seconds(f.IdleSeconds),
			size(f.BytesReceived), size(f.BytesSent), f.Reason)
	}
	t.fit(width, "REASON", "POOL", "ID", "LISTENER", "IDLE", "SENT", "RECEIVED", "AGE")
	p := &printer{out: w}
	p.table(t)
	return p.err
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
