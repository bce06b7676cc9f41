// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"slices"
	"strings"
	"time"

	"sluice/config"
)

// hserver is what the options of a server line say beyond the backend itself.
type hserver struct {
	b         *backend
	check     bool
	inter     time.Duration
	rise      int
	fall      int
	port      int
	send      string
	checkSend bool
	close     bool // on-marked-down shutdown-sessions
	elsewhere bool // its check has an address or port of its own
	tls       bool
	at        place
}

// use makes the pool of a backend, the first time.
func (h *haproxy) use(b *hbackend) {
	if b.made {
		return
	}
	b.made = true
	b.pool = &pool{name: b.s.name, at: b.s.at}
	h.balance(b)
	if b.s.kind == "backend" {
		h.rest(b.s)
	}
	start := hserver{b: newBackend("", b.s.at), inter: 2 * time.Second, rise: 2, fall: 3}
	start.b.maxFails = 0 // HAProxy takes nobody out for a failed connection
	var servers []*hserver
	for _, c := range b.s.chain() {
		for _, l := range c.lines {
			switch l.words[0] {
			case "default-server":
				h.serverOptions(&start, l, 1)
			case "server":
				if s := h.server(start, l); s != nil {
					servers = append(servers, s)
				}
			}
		}
	}
	for _, s := range servers {
		b.pool.backends = append(b.pool.backends, s.b)
	}
	h.headers(b, servers)
	h.checks(b, servers)
	h.backups(b, servers)
	h.retries(b)
}

// balance reads how servers are chosen.
func (h *haproxy) balance(b *hbackend) {
	l := b.s.last("balance")
	if l == nil {
		return
	}
	switch l.word(1) {
	case "roundrobin", "static-rr":
	case "leastconn":
		b.pool.balance = "least_conn"
	case "source":
		b.pool.balance = "hash"
	case "random", "random(2)":
		b.pool.balance = "random_two"
	default:
		what := "round_robin"
		if strings.HasPrefix(l.word(1), "random(") {
			what = "random_two"
			b.pool.balance = what
		}
		h.say(l.at, l.String(), "sluice has round_robin, least_conn, random_two and hash by address; "+what+" is used")
	}
}

// server reads a server line; nil: it is left out, and that is told.
func (h *haproxy) server(start hserver, l hline) *hserver {
	s := start
	b := *start.b
	s.b, s.at = &b, l.at
	b.at = l.at
	address, why := haproxyAddress(l.word(2))
	switch {
	case l.env:
		why = "a variable of the environment isn't known here"
	case why == "":
		h.serverOptions(&s, l, 3)
		if s.tls {
			why = "sluice has no TLS"
		}
	}
	if why != "" {
		h.say(l.at, "server "+l.word(1)+" "+l.word(2), why+"; left out")
		return nil
	}
	b.address = address
	return &s
}

// haproxyAddress is a server's address as sluice writes it.
func haproxyAddress(s string) (address, why string) {
	family, rest, found := strings.Cut(s, "@")
	switch {
	case strings.HasPrefix(s, "/"):
		rest = "unix:" + s
	case !found:
		rest = s
	case family == "unix":
		rest = "unix:" + rest
	case family != "ipv4" && family != "ipv6":
		return "", "sluice connects to TCP addresses and unix sockets with a path"
	}
	if !strings.HasPrefix(rest, "unix:") {
		colon := strings.LastIndexByte(rest, ':')
		if colon >= 0 && (strings.HasPrefix(rest[colon+1:], "+") || strings.HasPrefix(rest[colon+1:], "-")) {
			return "", "sluice has no port that is counted from the client's"
		}
		if host := rest[:max(colon, 0)]; strings.Contains(host, ":") && !strings.HasPrefix(host, "[") {
			rest = "[" + host + "]" + rest[colon:] // the last colon is the port's
		}
	}
	a, err := config.ParseBackend(rest)
	if err != nil {
		return "", err.Error()
	}
	return a.String(), ""
}

// serverOptions reads the options of a server or default-server line.
func (h *haproxy) serverOptions(s *hserver, l hline, from int) {
	for i := from; i < len(l.words); i++ {
		if !s.flag(l.words[i]) {
			i = h.serverValue(s, l, i)
		}
	}
}

// flag takes an option without a value, if it is one that is carried over.
func (s *hserver) flag(w string) bool {
	word, not := strings.CutPrefix(w, "no-")
	switch word {
	case "backup":
		s.b.backup = !not
	case "check":
		s.check = !not
	case "send-proxy", "send-proxy-v2", "send-proxy-v2-ssl", "send-proxy-v2-ssl-cn":
		s.send = "v2"
		if word == "send-proxy" {
			s.send = "v1"
		}
		if not {
			s.send = ""
		}
	case "check-send-proxy":
		s.checkSend = !not
	case "ssl":
		s.tls = !not
	case "disabled":
		s.b.state = "down"
	case "enabled":
		s.b.state = ""
	default:
		return false
	}
	return true
}

// serverValue takes an option with a value; it returns the index of its last word.
func (h *haproxy) serverValue(s *hserver, l hline, i int) int {
	v, ok := l.word(i+1), true
	switch l.words[i] {
	case "weight":
		var n int
		if n, ok = count(v, 0, 256); ok && n == 0 {
			s.b.state = "drain" // no new sessions, as HAProxy's weight 0
		} else if ok {
			s.b.weight = n
		}
	case "maxconn":
		ok = set(&s.b.maxConns, v, 0, 1<<31-1)
	case "slowstart":
		s.b.slowStart, ok = haproxyTime(v)
	case "inter":
		var t time.Duration
		if t, ok = haproxyTime(v); t >= time.Millisecond {
			s.inter = t
		} else {
			ok = false
		}
	case "rise":
		ok = set(&s.rise, v, 1, 1000)
	case "fall":
		ok = set(&s.fall, v, 1, 1000)
	case "port":
		ok = set(&s.port, v, 1, 65535)
		s.elsewhere = true
	case "on-marked-down":
		s.close = v == "shutdown-sessions"
		ok = s.close
	default:
		h.say(l.at, l.words[0]+" ... "+l.words[i], why(h.words, l.words[i]))
		if l.words[i] == "addr" {
			s.elsewhere = true
		}
		if takesValue(serverValues, l.words[i]) {
			return i + 1
		}
		return i
	}
	return h.value(l, i, ok)
}

// set reads a number from least to most into a value that stays if it isn't one.
func set(into *int, s string, least, most int64) bool {
	n, ok := count(s, least, most)
	if ok {
		*into = n
	}
	return ok
}

func why(words map[string]string, word string) string {
	if s := words[word]; s != "" {
		return s
	}
	return "has no counterpart in sluice"
}

// headers finds the PROXY header that all servers want: sluice's is a listener's.
func (h *haproxy) headers(b *hbackend, servers []*hserver) {
	for i, s := range servers {
		if i == 0 {
			b.send = s.send
		} else if s.send != b.send {
			h.say(s.at, "server "+s.b.address+" send-proxy", "sluice sends PROXY headers to all backends of a listener or to none; as for the first server")
		}
	}
}

// backups says what differs: of several backups HAProxy uses the first only.
func (h *haproxy) backups(b *hbackend, servers []*hserver) {
	n := 0
	for _, s := range servers {
		if s.b.backup {
			n++
		}
	}
	if n > 1 && b.s.last("option:allbackups") == nil {
		at := servers[slices.IndexFunc(servers, func(s *hserver) bool { return s.b.backup })].at
		h.say(at, "backup", "sluice balances over all backups once no other is left, as with option allbackups")
	}
}

// retries is how many servers a session tries at most. Without redispatch
// HAProxy's retries are all on the same server, and no session goes to another
// one; with it the last retry does, or each of so many.
func (h *haproxy) retries(b *hbackend) {
	n := 3
	if l := b.s.last("retries"); l != nil {
		if v, ok := count(l.word(1), 0, 1000); ok {
			n = v
		} else {
			h.say(l.at, l.String(), "is no number of retries")
		}
	}
	b.tries = 1
	if again := b.s.last("option:redispatch"); again != nil && n > 0 {
		b.tries = 2
		if every, ok := count(again.word(2), 1, 1000); ok {
			b.tries = 1 + n/every
		}
	}
}
