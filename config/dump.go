// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"reflect"
	"strings"
	"time"
	"unicode"
)

// Dump writes the configuration as YAML with every default filled in. Load
// accepts it and gives an Equal configuration. Pools that were written in a
// listener come as named pools.
func (c *Config) Dump() []byte {
	w := &strings.Builder{}
	if a := c.AccessLog; a == nil {
		fmt.Fprintln(w, "access_log: off")
	} else {
		fmt.Fprintf(w, "access_log:\n  path: %s\n  format: %s\n", scalar(a.Path), scalar(a.Format))
	}
	if c.Stats.Off {
		fmt.Fprintln(w, "stats: off")
	} else {
		fmt.Fprintf(w, "stats: %s\n", scalar(c.Stats.Address.String()))
	}
	fmt.Fprintf(w, "log:\n  level: %s\n", c.Log.Level)
	fmt.Fprintf(w, "drain_timeout: %s\nevent_loops: %d\n", short(c.DrainTimeout), c.EventLoops)
	c.Forward.dump(w)
	if len(c.Pools) > 0 {
		fmt.Fprintln(w, "pools:")
	}
	for _, p := range c.Pools {
		p.dump(w)
	}
	fmt.Fprintln(w, "listeners:")
	for _, l := range c.Listeners {
		l.dump(w)
	}
	return []byte(w.String())
}

func (p *Pool) dump(w *strings.Builder) {
	ejected := "fail"
	if p.TryEjected {
		ejected = "try"
	}
	remove := "drain"
	switch {
	case p.CloseOnRemove:
		remove = "close"
	case p.CloseAfter > 0:
		remove = short(p.CloseAfter)
	}
	fmt.Fprintf(w, "  %s:\n    balance: %s\n    all_ejected: %s\n    on_remove: %s\n    backends:\n",
		scalar(p.Name), p.Balance, ejected, remove)
	for _, b := range p.Backends {
		fmt.Fprintf(w, "      - address: %s\n        weight: %d\n        max_fails: %d\n        fail_timeout: %s\n"+
			"        max_conns: %d\n        backup: %t\n        state: %s\n        slow_start: %s\n",
			scalar(b.Address.String()), b.Weight, b.MaxFails, short(b.FailTimeout), b.MaxConns, b.Backup, b.State, short(b.SlowStart))
	}
}

func (l *Listener) dump(w *strings.Builder) {
	fmt.Fprintf(w, "  - name: %s\n    listen:\n", scalar(l.Name))
	for _, front := range l.Fronts() {
		fmt.Fprintf(w, "      - %s\n", scalar(front))
	}
	fmt.Fprintf(w, "    protocol: %s\n    pool: %s\n", l.Protocol(), scalar(l.Pool))
	if l.GRPC == nil {
		fmt.Fprintf(w, "    datapath: %s\n", l.Datapath)
	}
	fmt.Fprintf(w, "    connect_timeout: %s\n    idle_timeout: %s\n", short(l.ConnectTimeout), short(l.IdleTimeout))
	fmt.Fprintf(w, "    next_upstream:\n      tries: %d\n      timeout: %s\n", l.Tries, short(l.TryTimeout))
	fmt.Fprintf(w, "    proxy_protocol:\n      accept: %t\n      send: %s\n", l.ProxyAccept, l.ProxySend)
	fmt.Fprintf(w, "    allow: %s\n    deny: %s\n", ruleList(l.Allow), ruleList(l.Deny))
	fmt.Fprintf(w, "    max_conns: %d\n    max_conns_per_ip: %d\n    keepalive: %s\n    dead_peer: %s\n",
		l.MaxConns, l.MaxConnsPerIP, short(l.Keepalive), short(l.DeadPeer))
	onDatapath := "keep"
	if l.OnDatapathClose {
		onDatapath = "close"
	}
	fmt.Fprintf(w, "    on_datapath: %s\n    max_age: %s\n", onDatapath, short(l.MaxAge))
	if l.GRPC == nil {
		fmt.Fprintf(w, "    half_close: %t\n    upload_rate: %s\n    download_rate: %s\n", l.HalfClose, rate(l.UploadRate), rate(l.DownloadRate))
	}
	fmt.Fprintf(w, "    backlog: %d\n    access_log: %s\n", l.Backlog, l.AccessLog)
	l.GRPC.dump(w)
}

func ruleList(all []Rule) string {
	words := make([]string, len(all))
	for i, r := range all {
		words[i] = scalar(r.String())
	}
	return "[" + strings.Join(words, ", ") + "]"
}

// scalar writes a string so that YAML reads it back: in quotes unless it is a
// plain word.
func scalar(s string) string {
	if plain(s) {
		return s
	}
	w := &strings.Builder{}
	w.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			w.WriteByte('\\')
			w.WriteRune(r)
		case r == '\t':
			w.WriteString(`\t`)
		case unicode.IsPrint(r):
			w.WriteRune(r)
		case r > 0xFFFF:
			fmt.Fprintf(w, `\U%08X`, r)
		default:
			fmt.Fprintf(w, `\u%04X`, r)
		}
	}
	w.WriteByte('"')
	return w.String()
}

// plain tells words that no YAML reader takes for anything but a string.
func plain(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if i == 0 && !letter && c != '/' || !isNameByte(c) && !strings.ContainsRune("./-", rune(c)) {
			return false
		}
	}
	switch strings.ToLower(s) {
	case "", "true", "false", "on", "off", "yes", "no", "y", "n", "null":
		return false
	}
	return true
}

// short is a duration as Go writes it, without units that are zero: 10m, 1h30m.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Equal tells whether two configurations mean the same: places in the file, its
// name, and whether stats was written or left at its default aside.
func (c *Config) Equal(o *Config) bool {
	if c == nil || o == nil {
		return c == o
	}
	return reflect.DeepEqual(c.bare(), o.bare())
}

// bare is a deep copy without places.
func (c *Config) bare() *Config {
	b := *c
	b.File = ""
	b.Stats.Explicit, b.Stats.Pos = false, Position{}
	b.Forward.Pos, b.Forward.PinPos = Position{}, Position{}
	if c.AccessLog != nil {
		b.AccessLog = &AccessLog{Path: c.AccessLog.Path, Format: c.AccessLog.Format}
	}
	b.Pools = nil
	for _, p := range c.Pools {
		pool := *p
		pool.Pos = Position{}
		pool.Backends = append([]Backend(nil), p.Backends...)
		for i := range pool.Backends {
			pool.Backends[i].Pos = Position{}
		}
		b.Pools = append(b.Pools, &pool)
	}
	b.Listeners = nil
	for _, l := range c.Listeners {
		listener := *l
		listener.Pos, listener.ListenPos, listener.GRPC = Position{}, nil, l.GRPC.bare()
		b.Listeners = append(b.Listeners, &listener)
	}
	return &b
}
