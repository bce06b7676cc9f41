// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/config"
)

// checks makes the pool's check of what its servers say: sluice has one for all.
func (h *haproxy) checks(b *hbackend, servers []*hserver) {
	i := slices.IndexFunc(servers, func(s *hserver) bool { return s.check })
	if i < 0 {
		return
	}
	first := servers[i]
	for _, s := range servers {
		if a, err := config.ParseBackend(s.b.address); err == nil && a.Portless() && first.port == 0 {
			h.say(s.at, "server "+s.b.address+" check", "has no port to check; the pool has no check")
			return
		}
	}
	for _, s := range servers {
		switch {
		case !s.check:
			h.say(s.at, "server "+s.b.address, "has no check of its own, but sluice checks all backends of a pool")
		case s.inter != first.inter || s.rise != first.rise || s.fall != first.fall || s.port != first.port || s.close != first.close:
			h.say(s.at, "server "+s.b.address, "sluice checks all backends of a pool alike: as the first server")
		}
	}
	c := &check{kind: "tcp", interval: first.inter, rise: first.rise, fall: first.fall, port: first.port, close: first.close}
	c.timeout = c.interval
	if t := h.timeout(b.s, "check"); t >= time.Millisecond {
		c.timeout = min(t, c.interval)
	}
	if first.send != "" && (!first.elsewhere || first.checkSend) {
		c.proxy = first.send
	} else if first.checkSend {
		c.proxy = "v1"
	}
	b.pool.check, b.pool.fail = c, true
	if l := h.kindOfCheck(b.s); l != nil {
		switch l.word(1) {
		case "tcp-check":
			h.tcpCheck(b.s, c)
		case "redis-check":
			c.send, c.expect = `*1\r\n$4\r\nPING\r\n`, `^\+PONG`
		case "httpchk":
			h.httpCheck(b.s, *l, c)
		default:
			h.say(l.at, l.String(), "sluice's checks are tcp, http and grpc; connecting is what is checked")
		}
	}
}

// kindOfCheck is the last option that says what a check is, or nil.
func (h *haproxy) kindOfCheck(s *hsection) *hline {
	var found *hline
	for _, c := range s.chain() {
		for _, l := range c.lines {
			name, isOption := strings.CutPrefix(l.key(), "option:")
			if !isOption || name != "httpchk" && !strings.HasSuffix(name, "-check") {
				continue
			}
			if l.words[0] != "no" {
				found = &l
			} else if found != nil && found.key() == l.key() {
				found = nil
			}
		}
	}
	return found
}

// tcpCheck takes the steps of a tcp-check: what is sent, and one expectation.
func (h *haproxy) tcpCheck(s *hsection, c *check) {
	var send []byte
	for _, l := range s.all("tcp-check") {
		if c.expect != "" {
			h.say(l.at, l.String(), "a check of sluice sends once and expects once")
			continue
		}
		data := strings.Join(l.words[min(2, len(l.words)):], " ")
		switch l.word(1) {
		case "connect":
			if len(l.words) > 2 {
				h.say(l.at, l.String(), "a check of sluice connects to the backend, or its port")
			}
		case "comment":
		case "send":
			send = append(send, data...)
		case "send-binary":
			send = append(send, unhex(data)...)
		case "expect":
			h.expect(l, c)
		default:
			h.say(l.at, l.String(), "a check of sluice sends once and expects once")
		}
	}
	c.send = goEscapes(send)
}

// expect takes `tcp-check expect [!] string|rstring|binary ...`.
func (h *haproxy) expect(l hline, c *check) {
	data := strings.Join(l.words[min(3, len(l.words)):], " ")
	switch l.word(2) {
	case "string":
		c.expect = regexp.QuoteMeta(data)
	case "rstring":
		c.expect = data
	case "binary":
		c.expect = regexp.QuoteMeta(string(unhex(data)))
	}
	_, err := regexp.Compile(c.expect)
	if c.expect == "" || err != nil || strings.ContainsFunc(c.expect, func(r rune) bool { return r < ' ' || r > '~' }) {
		c.expect = ""
		h.say(l.at, l.String(), "sluice's expect is a regular expression (RE2) of printable characters")
	}
}

// httpCheck takes option httpchk and the http-check lines.
func (h *haproxy) httpCheck(s *hsection, l hline, c *check) {
	c.kind, c.path = "http", "/"
	method := "OPTIONS"
	switch len(l.words) {
	case 2:
	case 3:
		c.path = l.words[2]
	default:
		method, c.path = l.words[2], l.words[3]
	}
	if len(l.words) > 4 {
		_, header, _ := strings.Cut(strings.Join(l.words[4:], " "), "\r\n")
		host, ok := strings.CutPrefix(strings.ToLower(header), "host:")
		c.host = strings.TrimSpace(host)
		if header != "" && !ok || singleLine(c.host) != c.host {
			h.say(l.at, l.String(), "a check of sluice has no headers of one's choice but host")
			c.host = ""
		}
	}
	methodAt := l
	for _, e := range s.all("http-check") {
		switch e.word(1) {
		case "send":
			if m := h.httpSend(e, c); m != "" {
				method, methodAt = m, e
			}
		case "expect":
			h.httpExpect(e, c)
		case "disable-on-404":
			h.say(e.at, e.String(), "has no counterpart in sluice")
		default:
			h.say(e.at, e.String(), "a check of sluice is one request")
		}
	}
	if method != "GET" {
		h.say(methodAt.at, methodAt.String(), "sluice checks with GET, not "+printable(method))
	}
	if !strings.HasPrefix(c.path, "/") || singleLine(c.path) != c.path {
		h.say(l.at, l.String(), "is no path; / is used")
		c.path = "/"
	}
}

// httpSend takes `http-check send [meth M] [uri U] [ver V] [hdr N V]... [body B]`.
func (h *haproxy) httpSend(l hline, c *check) (method string) {
	for i := 2; i < len(l.words); i++ {
		switch l.words[i] {
		case "meth":
			method = l.word(i + 1)
			i++
		case "uri":
			c.path = l.word(i + 1)
			i++
		case "ver":
			i++
		case "hdr":
			if strings.EqualFold(l.word(i+1), "host") {
				c.host = singleLine(l.word(i + 2))
			} else {
				h.say(l.at, "http-check send ... hdr "+l.word(i+1), "a check of sluice has no headers of one's choice but host")
			}
			i += 2
		default:
			h.say(l.at, "http-check send ... "+l.words[i], "has no counterpart in sluice")
			i++
		}
	}
	return method
}

// httpExpect takes `http-check expect status 200-299,404`.
func (h *haproxy) httpExpect(l hline, c *check) {
	if l.word(2) != "status" {
		h.say(l.at, l.String(), "sluice's check looks at the status only")
		return
	}
	var all []string
	for s := range strings.SplitSeq(l.word(3), ",") {
		from, to, ranged := strings.Cut(s, "-")
		first, ok1 := count(from, 100, 599)
		end, ok2 := count(to, 100, 599)
		if !ok1 || ranged && (!ok2 || end < first) {
			h.say(l.at, l.String(), "is no status, or range of them, from 100 to 599")
			return
		}
		all = append(all, s)
	}
	c.status = all
}

// goEscapes is what strconv.Quote makes of bytes, without its quotes.
func goEscapes(b []byte) string {
	q := strconv.QuoteToASCII(string(b))
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

// unhex reads pairs of hexadecimal digits, as far as they are some.
func unhex(s string) (out []byte) {
	for ; len(s) >= 2; s = s[2:] {
		n, err := strconv.ParseUint(s[:2], 16, 8)
		if err != nil {
			break
		}
		out = append(out, byte(n))
	}
	return out
}
