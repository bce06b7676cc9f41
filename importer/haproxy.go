// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"slices"
	"strings"
	"time"
)

// haproxy is the import of a haproxy.cfg.
type haproxy struct {
	*work
	backends map[string]*hbackend
	words    map[string]string
}

const onlyTCP = "mode http: sluice balances connections, of mode tcp only"

// hbackend is a backend, or the half of a listen section that is one.
type hbackend struct {
	s     *hsection
	pool  *pool
	made  bool
	send  string // the PROXY header that its servers want; "": none
	tries int
}

// haproxy imports a haproxy.cfg.
func (w *work) haproxy(path, src string) error {
	all, err := w.readHAProxy(path, src)
	if err != nil {
		return err
	}
	h := &haproxy{work: w, backends: map[string]*hbackend{}, words: haproxyWhy()}
	for _, s := range all {
		if s.kind == "backend" || s.kind == "listen" {
			if _, twice := h.backends[s.name]; twice {
				w.say(s.at, s.kind+" "+s.name, "a name that is there already; the first one counts")
				continue
			}
			h.backends[s.name] = &hbackend{s: s}
		}
	}
	for _, s := range all {
		h.section(s)
	}
	for _, s := range all {
		if b := h.backends[s.name]; b != nil && b.s == s {
			switch {
			case b.pool != nil:
				w.out.pools = append(w.out.pools, b.pool)
			case s.kind == "backend" && !s.tcp():
				w.say(s.at, "backend "+s.name, onlyTCP)
			case s.kind == "backend":
				w.say(s.at, "backend "+s.name, "no frontend that is carried over has it as its default_backend")
			}
		}
	}
	return nil
}

func (h *haproxy) section(s *hsection) {
	switch s.kind {
	case "global":
		for _, l := range s.lines {
			h.global(l)
		}
	case "defaults", "backend": // read where they are used
	case "frontend", "listen":
		switch b := h.backends[s.name]; {
		case s.kind == "listen" && b.s != s: // told
		case !s.tcp():
			h.say(s.at, s.kind+" "+s.name, onlyTCP)
		default:
			h.frontend(s)
		}
	default:
		h.say(s.at, strings.TrimSpace(s.kind+" "+s.name), "has no counterpart in sluice")
	}
}

// chain is the section and its defaults, the outermost first.
func (s *hsection) chain() []*hsection {
	var all []*hsection
	for at := s; at != nil && len(all) < 32; at = at.from {
		all = append(all, at)
	}
	slices.Reverse(all)
	return all
}

// all are the lines about a word that hold for a section: those of its defaults first.
func (s *hsection) all(key string) []hline {
	var all []hline
	for _, c := range s.chain() {
		all = append(all, c.byKey[key]...)
	}
	return all
}

// last is the last line about a word, or nil. One that begins with `no` takes
// it back.
func (s *hsection) last(key string) *hline {
	for _, c := range slices.Backward(s.chain()) {
		if own := c.byKey[key]; own != nil {
			l := own[len(own)-1]
			if l.words[0] == "no" {
				return nil
			}
			return &l
		}
	}
	return nil
}

// tcp tells whether its mode is tcp, as HAProxy's is if none is written.
func (s *hsection) tcp() bool {
	l := s.last("mode")
	return l == nil || l.word(1) == "tcp"
}

// timeout reads a timeout of a section; 0 if there is none.
func (h *haproxy) timeout(s *hsection, name string) time.Duration {
	l := s.last("timeout:" + name)
	if l == nil {
		return 0
	}
	return h.time(*l, l.word(2))
}

// time reads a time of a line; 0 if it is none.
func (h *haproxy) time(l hline, s string) time.Duration {
	t, ok := haproxyTime(s)
	if !ok {
		h.say(l.at, l.String(), "is no time that HAProxy knows, up to ten years")
	}
	return t
}

// haproxyTime reads a number with a unit; without, it is milliseconds.
func haproxyTime(s string) (time.Duration, bool) {
	digits := len(s) - len(strings.TrimLeft(s, "0123456789"))
	n, ok := number(s[:digits])
	unit, known := map[string]time.Duration{
		"us": time.Microsecond, "": time.Millisecond, "ms": time.Millisecond,
		"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour,
	}[s[digits:]]
	if !ok || !known || n > int64(maxDuration/unit) {
		return 0, false
	}
	return time.Duration(n) * unit, true
}

// global carries over what the process as a whole has.
func (h *haproxy) global(l hline) {
	const bad = "is nothing that HAProxy and sluice take here; the default is used"
	switch l.words[0] {
	case "nbthread":
		if !set(&h.out.eventLoops, l.word(1), 1, 1024) {
			h.say(l.at, l.String(), bad)
		}
	case "hard-stop-after":
		if t, ok := haproxyTime(l.word(1)); ok && t > 0 {
			h.out.drainTimeout = &t
		} else {
			h.say(l.at, l.String(), bad)
		}
	default:
		h.unknown(l)
	}
}

// frontend makes the listeners of a frontend or listen section.
func (h *haproxy) frontend(s *hsection) {
	name := s.name
	if s.kind == "frontend" {
		l := s.last("default_backend")
		if l == nil {
			h.rest(s)
			h.say(s.at, "frontend "+s.name, "has no default_backend, and sluice chooses a pool by nothing but the listener; left out")
			return
		}
		name = l.word(1)
	}
	h.rest(s)
	b := h.backends[name]
	if b == nil || !b.s.tcp() {
		h.say(s.at, s.kind+" "+s.name, "there is no backend "+printable(name)+" of mode tcp; left out")
		return
	}
	h.use(b)
	var fronts []*front
	for _, l := range s.lines {
		if l.words[0] == "bind" {
			fronts = append(fronts, h.bind(l)...)
		}
	}
	if len(fronts) == 0 {
		h.say(s.at, s.kind+" "+s.name, "no bind of it can be carried over, so it isn't")
		return
	}
	for i, group := range byOptions(fronts) {
		l := &listener{name: s.name, pool: b.pool, at: group[0].at}
		if i > 0 {
			l.name = group[0].label(s.name)
		}
		o := group[0].options
		l.accept, l.backlog, l.deadPeer = o.accept, o.backlog, o.deadPeer
		l.maxConns = o.maxConns
		l.listen = addresses(group, func(f *front) {
			h.say(f.at, f.said, "sluice's [::] takes clients of IPv4, too")
		})
		h.settings(l, s, b)
		h.out.listeners = append(h.out.listeners, l)
	}
}

// settings carries over what front and back say of a session.
func (h *haproxy) settings(l *listener, s *hsection, b *hbackend) {
	l.send = b.send
	if b.tries < len(b.pool.backends) {
		l.tries = b.tries
	}
	if t := h.timeout(b.s, "connect"); t > 0 && t != time.Minute {
		l.connectTimeout = t
	}
	idle := h.idle(s, b.s)
	l.idleTimeout = &idle
	if m := s.last("maxconn"); m != nil {
		n, ok := count(m.word(1), 0, 1<<31-1)
		if !ok {
			h.say(m.at, m.String(), "is no number of connections")
		}
		l.maxConns = least(l.maxConns, n)
	}
	if m := s.last("backlog"); m != nil && l.backlog == 0 {
		n, ok := count(m.word(1), 1, 1<<31-1)
		if !ok {
			h.say(m.at, m.String(), "is no backlog that sluice takes")
		}
		l.backlog = n
	}
	l.keepalive = h.keepalive(s, b.s)
}

// idle is how long a session may be idle: of tunnel, else the shorter one of
// client and server. 0: none.
func (h *haproxy) idle(front, back *hsection) time.Duration {
	if t := h.timeout(back, "tunnel"); t > 0 {
		return t
	}
	client, server := h.timeout(front, "client"), h.timeout(back, "server")
	if client != server && client > 0 && server > 0 {
		for _, l := range []*hline{front.last("timeout:client"), back.last("timeout:server")} {
			h.say(l.at, l.String(), "sluice has one idle_timeout for both sides, the shorter one of client and server")
		}
	}
	if client == 0 || server > 0 && server < client {
		return server
	}
	return client
}

// keepalive is TCP's, if either side has it.
func (h *haproxy) keepalive(front, back *hsection) time.Duration {
	var idle time.Duration
	for _, side := range []struct {
		s    *hsection
		name string
	}{{front, "clitcpka"}, {back, "srvtcpka"}} {
		if side.s.last("option:"+side.name) == nil && side.s.last("option:tcpka") == nil {
			continue
		}
		t := kernelKeepalive
		if l := side.s.last(side.name + "-idle"); l != nil {
			if v := h.time(*l, l.word(1)); v >= time.Second && v <= 32767*time.Second {
				t = v
			} else {
				h.say(l.at, l.String(), "is no idle time that the kernel takes, from 1s to 32767s; 2h is used")
			}
		}
		if idle == 0 || t < idle {
			idle = t
		}
	}
	return idle
}
