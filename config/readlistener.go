// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"strings"
	"time"
)

// Defaults of a listener.
const (
	DefaultConnectTimeout = 60 * time.Second
	DefaultIdleTimeout    = 10 * time.Minute
	DefaultBacklog        = 4096
)

// The kernel takes TCP_KEEPIDLE in seconds, up to MAX_TCP_KEEPIDLE.
const (
	minKeepalive = time.Second
	maxKeepalive = 32767 * time.Second
)

// The kernel takes TCP_USER_TIMEOUT as an int of milliseconds.
const (
	minDeadPeer = time.Millisecond
	maxDeadPeer = 596 * time.Hour
)

// listener reads one listener, and the pool that it brings along, or nil.
func (d *decoder) listener(n *node) (*Listener, *Pool) {
	l := &Listener{
		Datapath: Auto, ConnectTimeout: DefaultConnectTimeout, IdleTimeout: DefaultIdleTimeout,
		ProxySend: ProxyOff, HalfClose: true, Backlog: DefaultBacklog, AccessLog: LogOn, Pos: n.pos,
	}
	what := "a listener"
	if p := n.get("name"); p != nil {
		l.Name, _ = d.text(p.value, "listener name", nameRule)
		if l.Name != "" && !goodName(l.Name) {
			d.fail(p.value.pos, "listener name is %s, must be %s", quote(l.Name), nameRule)
		}
		l.Pos = p.value.pos
		what = "listener " + quote(l.Name)
	}
	if n.kind == nullKind {
		d.fail(n.pos, "a listener is empty, must be a mapping with name, listen and pool")
		return l, nil
	}
	var own *Pool
	if d.speaksGRPC(n) {
		l.GRPC = newGRPC()
	}
	d.fields(n, what, append([]field{
		{"name", func(pair) {}},
		{"listen", func(p pair) { d.listen(p, l) }},
		{"pool", func(p pair) { l.Pool, _ = d.text(p.value, "pool", "the name of a pool") }},
		{"backends", func(p pair) {
			own = newPool(l.Name, p.keyPos)
			d.backends(p, own)
		}},
	}, append(d.listenerOptions(l), d.grpcOptions(l, what)...)...))
	if n.kind == mapKind {
		d.listenerNeeds(n, what)
	}
	if l.GRPC != nil {
		d.notForGRPC(n, what)
	}
	if n.has("pool") {
		own = nil
	}
	if own != nil {
		l.Pool = l.Name
	}
	return l, own
}

func (d *decoder) listenerOptions(l *Listener) []field {
	return []field{
		{"protocol", d.protocol},
		{"datapath", func(p pair) {
			if v := p.value; v.kind == textKind && v.text == string(NAT) {
				d.fail(v.pos, "datapath %q is not supported yet, must be one of auto, offload, splice, relay", v.text)
				return
			}
			choice(d, p, &l.Datapath, Auto, Offload, Splice, Relay)
		}},
		{"connect_timeout", func(p pair) { d.duration(p, "", 1, maxDuration, &l.ConnectTimeout) }},
		{"idle_timeout", func(p pair) { d.duration(p, "no limit", 1, maxDuration, &l.IdleTimeout) }},
		{"next_upstream", func(p pair) {
			d.fields(p.value, "next_upstream", []field{
				{"tries", func(p pair) { d.integer(p, 0, maxInt, &l.Tries) }},
				{"timeout", func(p pair) { d.duration(p, "no limit", 1, maxDuration, &l.TryTimeout) }},
			})
		}},
		{"proxy_protocol", func(p pair) {
			d.fields(p.value, "proxy_protocol", []field{
				{"accept", func(p pair) { d.boolean(p, &l.ProxyAccept) }},
				{"send", func(p pair) {
					if isOff(p.value) {
						l.ProxySend = ProxyOff
						return
					}
					choice(d, p, &l.ProxySend, ProxyOff, ProxyV1, ProxyV2)
				}},
			})
		}},
		{"allow", func(p pair) { l.Allow = d.rules(p) }},
		{"deny", func(p pair) { l.Deny = d.rules(p) }},
		{"max_conns", func(p pair) { d.integer(p, 0, maxInt, &l.MaxConns) }},
		{"max_conns_per_ip", func(p pair) { d.integer(p, 0, maxInt, &l.MaxConnsPerIP) }},
		{"keepalive", func(p pair) { d.duration(p, "none", minKeepalive, maxKeepalive, &l.Keepalive) }},
		{"dead_peer", func(p pair) { d.duration(p, "as long as the kernel tries", minDeadPeer, maxDeadPeer, &l.DeadPeer) }},
		{"half_close", func(p pair) { d.boolean(p, &l.HalfClose) }},
		{"on_datapath", func(p pair) {
			word := "keep"
			choice(d, p, &word, "keep", "close")
			l.OnDatapathClose = word == "close"
		}},
		{"max_age", func(p pair) { d.duration(p, "no limit", 1, maxDuration, &l.MaxAge) }},
		{"upload_rate", func(p pair) { d.rate(p, &l.UploadRate) }},
		{"download_rate", func(p pair) { d.rate(p, &l.DownloadRate) }},
		{"backlog", func(p pair) { d.integer(p, 1, maxInt, &l.Backlog) }},
		{"access_log", func(p pair) { d.logMode(p, &l.AccessLog) }},
	}
}

// listenerNeeds checks that the keys that have no default are there.
func (d *decoder) listenerNeeds(n *node, what string) {
	if !n.has("name") {
		d.fail(n.pos, "a listener has no name, must have name")
	}
	if !n.has("listen") {
		d.fail(n.pos, "%s has no address, must have listen", what)
	}
	pool, backends := n.get("pool"), n.get("backends")
	switch {
	case pool == nil && backends == nil:
		d.fail(n.pos, "%s has no pool, must have pool or backends", what)
	case pool != nil && backends != nil:
		d.fail(backends.keyPos, "%s has both pool and backends, must have one of them: pool is at %d:%d",
			what, pool.keyPos.Line, pool.keyPos.Column)
	}
}

// protocol accepts those there are.
func (d *decoder) protocol(p pair) {
	s, ok := d.text(p.value, "protocol", "tcp or grpc")
	switch {
	case !ok || s == "tcp" || s == "grpc":
	case strings.Contains(" udp tls sni http http2 quic ", " "+s+" "):
		d.fail(p.value.pos, "protocol %q is not supported yet, must be tcp or grpc", s)
	default:
		d.fail(p.value.pos, "protocol is %s, must be tcp or grpc", quote(s))
	}
}

// listen reads one address or a list of them.
func (d *decoder) listen(p pair, l *Listener) {
	const must = listenForms
	one := func(n *node) {
		s, ok := d.text(n, "listen address", must)
		if !ok {
			return
		}
		fronts, err := ParseFronts(s)
		if err != nil {
			d.fail(n.pos, "listen address %s: %v", quote(s), err)
			return
		}
		d.visited += len(fronts) - 1
		if d.visited > maxValues {
			return
		}
		for _, a := range fronts {
			l.Listen = append(l.Listen, a)
			l.ListenPos = append(l.ListenPos, n.pos)
		}
	}
	if p.value.kind != listKind {
		one(p.value)
		return
	}
	if len(p.value.items) == 0 {
		d.fail(p.value.pos, "listen is an empty list, must have one address at least")
	}
	d.list(p, "addresses", one)
}

// rules reads a list of CIDRs, all and unix.
func (d *decoder) rules(p pair) (all []Rule) {
	d.list(p, "CIDRs", func(n *node) {
		s, ok := d.text(n, p.key, ruleForms)
		if !ok {
			return
		}
		rule, err := parseRule(s)
		if err != nil {
			d.fail(n.pos, "%s %v", p.key, err)
			return
		}
		all = append(all, rule)
	})
	return all
}

// logMode reads which sessions get a line: on, off (which some write as true
// and false) or nonempty.
func (d *decoder) logMode(p pair, into *LogMode) {
	on, ok := truth(p.value)
	switch {
	case ok && on:
		*into = LogOn
	case ok:
		*into = LogOff
	case p.value.kind == textKind && p.value.text == string(LogNonempty):
		*into = LogNonempty
	default:
		d.fail(p.value.pos, "%s is %s, must be on, off or nonempty", p.key, describe(p.value))
	}
}

// format reads and checks the access log's format.
func (d *decoder) format(p pair, a *AccessLog) {
	const must = "proxy, json or a string of $variables"
	n := p.value
	if n.kind != textKind || n.text == "" {
		d.fail(n.pos, "format is %s, must be %s", describe(n), must)
		return
	}
	s := strings.TrimRight(n.text, "\n") // a block ends with one
	pieces, err := ParseFormat(s)
	if err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			d.fail(n.pos, "format: %s", line)
		}
		return
	}
	variables := 0
	for _, piece := range pieces {
		if piece.Variable != "" {
			variables++
		}
	}
	switch {
	case strings.Contains(s, "\n"):
		d.fail(n.pos, "format has a line break, must be one line: a session is one line")
	case variables == 0:
		d.fail(n.pos, "format is %s, must be %s", quote(s), must)
	default:
		a.Format = s
	}
}

func placeOf(p Position) string { return fmt.Sprintf("%d:%d", p.Line, p.Column) }
