// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// writer writes YAML by the line. Values are written by text and the other
// methods, which quote what a reader could take for something else.
type writer struct {
	b      bytes.Buffer
	indent string
	item   bool // the next line begins an item of a list
}

func (w *writer) line(s string) {
	lead := w.indent
	if w.item {
		lead = strings.TrimSuffix(lead, "  ") + "- "
		w.item = false
	}
	w.b.WriteString(strings.TrimRight(lead+s, " ") + "\n")
}

func (w *writer) key(key, value string) { w.line(key + ": " + value) }

func (w *writer) count(key string, n, usual int) {
	if n != usual {
		w.key(key, strconv.Itoa(n))
	}
}

func (w *writer) time(key string, d, usual time.Duration) {
	if d != usual {
		w.key(key, short(d))
	}
}

func (w *writer) word(key, s string) {
	if s != "" {
		w.key(key, text(s))
	}
}

// in writes what is under a key, or in an item.
func (w *writer) in(write func()) {
	w.indent += "  "
	write()
	w.indent = w.indent[2:]
}

func (w *writer) each(write func()) {
	w.indent += "    "
	w.item = true
	write()
	w.indent = w.indent[4:]
}

func (w *writer) from(at place) { w.line("# " + printable(at.file) + ":" + strconv.Itoa(at.line)) }

// yaml is the file as text.
func (f *file) yaml(source string) []byte {
	w := &writer{}
	w.line("# Made from " + printable(source) + " by `sluice import`.")
	if f.accessLog != nil {
		w.line("access_log:")
		w.in(func() {
			w.key("path", text(f.accessLog.path))
			w.key("format", text(f.accessLog.format))
		})
	}
	w.word("stats", f.stats)
	if f.drainTimeout != nil {
		w.key("drain_timeout", short(*f.drainTimeout))
	}
	w.count("event_loops", f.eventLoops, 0)
	head := "pools:"
	for _, p := range f.pools {
		if p.named || !p.plain() {
			if head != "" {
				w.line("")
				w.line(head)
				head = ""
			}
			w.in(func() { w.pool(p) })
		}
	}
	w.line("")
	w.line("listeners:")
	for _, l := range f.listeners {
		w.in(func() { w.from(l.at) })
		w.each(func() { w.listener(l) })
	}
	return w.b.Bytes()
}

func (w *writer) pool(p *pool) {
	w.from(p.at)
	w.line(quotedText(p.name) + ":")
	w.in(func() {
		w.word("balance", p.balance)
		if p.fail {
			w.key("all_ejected", "fail")
		}
		w.backends(p)
		if p.check != nil {
			w.line("check:")
			w.in(func() { w.check(p.check) })
		}
	})
}

func (w *writer) backends(p *pool) {
	w.line("backends:")
	for _, b := range p.backends {
		w.each(func() { w.backend(b) })
	}
}

func (w *writer) backend(b *backend) {
	if *b == *newBackend(b.address, b.at) {
		w.line(text(b.address))
		return
	}
	if b.srv != "" {
		w.key("srv", text(b.srv))
	} else {
		w.key("address", text(b.address))
	}
	w.count("weight", b.weight, 1)
	w.count("max_fails", b.maxFails, 1)
	w.time("fail_timeout", b.failTimeout, 10*time.Second)
	w.count("max_conns", b.maxConns, 0)
	if b.backup {
		w.key("backup", "true")
	}
	w.word("state", b.state)
	w.time("slow_start", b.slowStart, 0)
}

func (w *writer) check(c *check) {
	w.key("type", c.kind)
	w.time("interval", c.interval, 5*time.Second)
	w.time("timeout", c.timeout, time.Second)
	w.count("rise", c.rise, 2)
	w.count("fall", c.fall, 3)
	w.count("port", c.port, 0)
	w.word("send", c.send)
	w.word("expect", c.expect)
	if c.path != "/" {
		w.word("path", c.path)
	}
	w.word("host", c.host)
	switch len(c.status) {
	case 0:
	case 1:
		w.key("status", c.status[0])
	default:
		w.key("status", "["+strings.Join(c.status, ", ")+"]")
	}
	w.word("proxy_protocol", c.proxy)
	if c.close {
		w.key("on_down", "close")
	}
}

func (w *writer) listener(l *listener) {
	w.key("name", text(l.name))
	if len(l.listen) == 1 {
		w.key("listen", text(l.listen[0]))
	} else {
		w.key("listen", list(l.listen))
	}
	if l.grpc {
		w.key("protocol", "grpc")
	}
	if l.inline() {
		w.backends(l.pool)
	} else {
		w.key("pool", text(l.pool.name))
	}
	if len(l.routes) > 0 {
		w.line("routes:")
		for _, r := range l.routes {
			w.each(func() { w.line(fmt.Sprintf("{methods: [%s], pool: %s}", text(r.method), quotedText(r.pool.name))) })
		}
	}
	w.time("connect_timeout", l.connectTimeout, 0)
	if l.idleTimeout != nil {
		w.time("idle_timeout", *l.idleTimeout, 10*time.Minute)
	}
	if l.tries != 0 || l.tryTimeout != 0 {
		w.key("next_upstream", fmt.Sprintf("{tries: %d, timeout: %s}", l.tries, short(l.tryTimeout)))
	}
	if l.retryOff {
		w.key("retry", "off")
	}
	if l.accept || l.send != "" {
		send := l.send
		if send == "" {
			send = "off"
		}
		w.key("proxy_protocol", fmt.Sprintf("{accept: %t, send: %s}", l.accept, send))
	}
	if l.allow != nil {
		w.key("allow", list(l.allow))
	}
	if l.deny != nil {
		w.key("deny", list(l.deny))
	}
	w.count("max_conns", l.maxConns, 0)
	w.count("max_conns_per_ip", l.maxConnsPerIP, 0)
	w.time("keepalive", l.keepalive, 0)
	w.time("dead_peer", l.deadPeer, 0)
	if l.halfOff {
		w.key("half_close", "false")
	}
	w.rate("upload_rate", l.upload)
	w.rate("download_rate", l.download)
	w.count("backlog", l.backlog, 0)
	w.word("access_log", l.log)
}

// rate writes bytes a second in the largest unit without a remainder.
func (w *writer) rate(key string, n int64) {
	unit := ""
	for _, u := range []string{"KiB", "MiB", "GiB"} {
		if n == 0 || n%1024 != 0 {
			break
		}
		n, unit = n/1024, u
	}
	if n != 0 {
		w.key(key, strconv.FormatInt(n, 10)+unit)
	}
}

func list(all []string) string {
	words := make([]string, len(all))
	for i, s := range all {
		words[i] = quotedText(s)
	}
	return "[" + strings.Join(words, ", ") + "]"
}

var (
	plainWord    = regexp.MustCompile(`^[A-Za-z/][A-Za-z0-9_./-]*$`)
	plainAddress = regexp.MustCompile(`^[0-9a-z.-]*[a-z.][0-9a-z.-]*:[0-9]+$`)
	notPlain     = regexp.MustCompile(`^(?i:true|false|yes|no|y|n|null)$`)
)

// text writes a string so that any reader of YAML reads it back: as JSON does,
// unless it is a plain word. on and off are words of sluice.
func text(s string) string {
	if (plainWord.MatchString(s) || plainAddress.MatchString(s)) && !notPlain.MatchString(s) {
		return s
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		return `""` // no string does
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// quotedText is text for a key, or for within brackets, where a colon is better
// in quotes.
func quotedText(s string) string {
	if t := text(s); t != s || !strings.Contains(s, ":") {
		return t
	}
	return `"` + s + `"`
}

// short is a duration as Go writes it, without units that are zero.
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
