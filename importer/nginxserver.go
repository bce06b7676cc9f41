// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"fmt"
	"strings"
	"time"
)

// server makes listeners of a server block, one for each set of options that
// its addresses have.
func (x *nginx) server(c *context, d *directive) error {
	list, err := x.expand(d.block)
	if err != nil {
		return err
	}
	s := newScope(list, c.scope)
	if c.http || s.words["location"] != nil && s.words["proxy_pass"] == nil {
		return x.grpcServer(c, d, s, list)
	}
	for _, w := range list {
		if !carried(c, w.name) {
			x.unknown(w)
		}
	}
	if why := refused(s); why != nil {
		x.lose(why, refusal(why)+"; this server is left out")
		if s.words[why.name] == nil { // of stream{}, for all its servers
			x.say(d.at, "server", fmt.Sprintf("left out for the %s of line %d", why.name, why.at.line))
		}
		return nil
	}
	pass := last(s.words["proxy_pass"])
	if pass == nil {
		x.say(d.at, "server", "passes sessions to nobody, so there is nothing to carry over")
		return nil
	}
	p, why := x.passTo(c, pass, pass.arg(0))
	if why != "" {
		x.lose(pass, why+"; this server is left out")
		return nil
	}
	for _, fronts := range byOptions(x.fronts(c, d, s)) {
		x.streamSettings(x.newListener(fronts, p), s)
	}
	return nil
}

func last(all []*directive) *directive {
	if len(all) == 0 {
		return nil
	}
	return all[len(all)-1]
}

// refused is what makes a server one that can't be carried over at all, or nil.
func refused(s *scope) *directive {
	for _, name := range []string{"return", "pass", "js_access", "js_preread", "js_filter", "proxy_ssl"} {
		d := s.last(name)
		if d != nil && (name != "proxy_ssl" || d.arg(0) == "on") {
			return d
		}
	}
	return nil
}

func refusal(d *directive) string {
	switch d.name {
	case "proxy_ssl":
		return "sluice has no TLS"
	case "return", "pass":
		return "sluice only passes sessions to backends"
	}
	return "sluice runs no scripts"
}

// fronts are the addresses of a server that can be carried over.
func (x *nginx) fronts(c *context, d *directive, s *scope) []*front {
	var fronts []*front
	for _, l := range s.words["listen"] {
		if f := x.listenOf(c, l); f != nil {
			fronts = append(fronts, f)
		}
	}
	if s.words["listen"] == nil {
		if !c.http {
			x.say(d.at, "server", "has no listen, so there is nothing to carry over")
			return nil
		}
		fronts = []*front{{first: 80, last: 80, at: d.at, said: "listen 80"}} // nginx's default
	}
	return fronts
}

// newListener makes a listener, named after its upstream or else its port.
func (x *nginx) newListener(fronts []*front, p *pool) *listener {
	l := &listener{pool: p, at: fronts[0].at, name: p.name}
	if p.direct || x.used[p] {
		l.name = fronts[0].label("port")
	}
	x.used[p] = true
	o := fronts[0].options
	l.accept, l.backlog, l.keepalive = o.accept, o.backlog, o.keepalive
	l.listen = addresses(fronts, func(f *front) {
		x.say(f.at, f.said, "sluice's [::] takes clients of IPv4, too")
	})
	x.out.listeners = append(x.out.listeners, l)
	return l
}

// passTo is the pool that an argument of proxy_pass or grpc_pass names: an
// upstream, or an address.
func (x *nginx) passTo(c *context, d *directive, to string) (p *pool, why string) {
	if u := c.upstreams[to]; u != nil {
		return x.use(u), ""
	}
	if strings.Contains(to, "$") {
		return nil, "a variable decides where to, and sluice has none for that"
	}
	address, why := backendAddress(to, c.http)
	if why != "" {
		return nil, why
	}
	p = &pool{name: address, at: d.at, direct: true}
	p.backends = []*backend{newBackend(address, d.at)}
	x.lastResort(p)
	x.out.pools = append(x.out.pools, p)
	return p, ""
}

// streamSettings carries over what a server in stream{} says of its sessions.
func (x *nginx) streamSettings(l *listener, s *scope) {
	x.times(l, s, "proxy")
	l.halfOff = !s.on("proxy_half_close")
	if s.on("proxy_protocol") {
		l.send = "v1"
	} else if d := s.last("proxy_protocol"); d != nil && d.arg(0) == "v2" {
		l.send = "v2"
	}
	if d := s.last("proxy_timeout"); d != nil {
		if t, ok := x.duration(d, time.Millisecond); ok {
			l.idleTimeout = &t
		}
	}
	l.upload = x.rate(s.last("proxy_upload_rate"))
	l.download = x.rate(s.last("proxy_download_rate"))
	if s.on("proxy_socket_keepalive") && l.keepalive == 0 {
		l.keepalive = kernelKeepalive
	}
	x.access(l, s)
	x.limits(l, s)
	x.logs.server(x.work, l, s.all("access_log"))
	x.headers(l, s)
}

// times carries over how long attempts take and how many there are; prefix is
// the module's, proxy or grpc.
func (x *nginx) times(l *listener, s *scope, prefix string) {
	if d := s.last(prefix + "_connect_timeout"); d != nil {
		if t, ok := x.duration(d, time.Millisecond); ok && t != time.Minute {
			l.connectTimeout = t
		}
	}
	if d := s.last(prefix + "_next_upstream_tries"); d != nil {
		n, ok := count(d.arg(0), 0, 1<<31-1)
		if !ok {
			x.lose(d, "is no number of attempts")
		}
		l.tries = n
	}
	if d := s.last(prefix + "_next_upstream_timeout"); d != nil {
		if t, ok := x.duration(d, 0); ok {
			l.tryTimeout = t
		}
	}
	if d := s.last(prefix + "_next_upstream"); d != nil && d.arg(0) == "off" {
		l.tries, l.retryOff = 1, l.grpc
	}
}

// rate reads a bytes-a-second directive; nil is no limit.
func (x *nginx) rate(d *directive) int64 {
	if d == nil {
		return 0
	}
	n, ok := nginxSize(d.arg(0))
	if !ok {
		x.lose(d, "is no fixed number of bytes that sluice takes; there is no limit")
	}
	return n
}

// access carries over allow and deny.
func (x *nginx) access(l *listener, s *scope) {
	var inner *scope
	for inner = s; inner != nil && inner.words["allow"] == nil && inner.words["deny"] == nil; {
		inner = inner.outer
	}
	if inner == nil {
		return
	}
	var rules []rule
	for _, d := range inOrderOfLines(inner.words["allow"], inner.words["deny"]) {
		r, ok := parseRule(d.name == "allow", d.arg(0))
		if !ok {
			x.lose(d, "is no address, prefix, unix: or all")
			continue
		}
		rules = append(rules, r)
	}
	first := inOrderOfLines(inner.words["allow"], inner.words["deny"])[0]
	if len(rules) > maxRules {
		x.say(first.at, "allow and deny", "too many rules to work out what they mean together; nobody is let in until you write them")
		l.deny = []string{"all"}
		return
	}
	allow, deny, err := sluicesRules(rules)
	if err != nil {
		x.say(first.at, "allow and deny", "can't be worked out, nobody is let in until you write them: "+err.Error())
		l.deny = []string{"all"}
		return
	}
	l.allow, l.deny = allow, deny
	if l.accept && s.all("set_real_ip_from") != nil && len(allow)+len(deny) > 0 {
		x.say(first.at, first.name, "sluice's allow and deny are of the peer that sends the PROXY header, not of the client that it names")
	}
}

// headers says what differs between the two programs where PROXY headers come in.
func (x *nginx) headers(l *listener, s *scope) {
	real := s.all("set_real_ip_from")
	switch {
	case !l.accept: // set_real_ip_from is without effect in nginx, too
	case real == nil:
		x.say(l.at, "proxy_protocol", "in sluice $remote_addr, hash and limits are of the client that the header names; nginx does so with set_real_ip_from only")
	default:
		for _, d := range real {
			if d.arg(0) != "0.0.0.0/0" && d.arg(0) != "::/0" && d.arg(0) != "unix:" {
				x.lose(d, "sluice believes the headers of all who may connect; restrict them by allow")
			}
		}
	}
}
