// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"slices"
	"strings"
	"time"
)

// location is a location of an http server that passes gRPC on.
type location struct {
	d      *directive
	exact  bool
	prefix string
	pass   *directive
}

// enterHTTP takes an http{} if a server in it passes gRPC on; else it stays
// with nginx as a whole.
func (x *nginx) enterHTTP(d *directive) error {
	list, err := x.expand(d.block)
	if err != nil {
		return err
	}
	found := false
	for _, s := range list {
		if s.name != "server" {
			continue
		}
		if s.block, err = x.expand(s.block); err != nil {
			return err
		}
		found = found || passesGRPC(s.block)
	}
	if !found {
		x.say(d.at, "http", "serves HTTP; no server in it has grpc_pass, so it stays with nginx")
		return nil
	}
	return x.enter(x.http, slices.DeleteFunc(list, func(s *directive) bool {
		if s.name != "server" || passesGRPC(s.block) {
			return false
		}
		x.say(s.at, "server", "has no grpc_pass, so it stays with nginx")
		return true
	}))
}

func passesGRPC(list []*directive) bool {
	return slices.ContainsFunc(list, func(d *directive) bool {
		return d.name == "grpc_pass" || d.name == "location" && passesGRPC(d.block)
	})
}

// grpcServer makes a listener of an http server: its locations become routes.
func (x *nginx) grpcServer(c *context, d *directive, s *scope, list []*directive) error {
	if !c.http {
		x.lose(s.words["location"][0], "nginx refuses a location in stream {}; the server is taken as one of http {}")
		c = &context{http: true, scope: c.scope, upstreams: c.upstreams}
	}
	for _, w := range list {
		if !carried(c, w.name) {
			x.unknown(w)
		}
	}
	if ssl := s.last("ssl"); ssl != nil && ssl.arg(0) == "on" {
		x.lose(ssl, "sluice has no TLS; this server is left out")
		return nil
	}
	fronts := x.fronts(c, d, s)
	if len(fronts) == 0 {
		return nil
	}
	if x.hosts(fronts) {
		x.say(d.at, "server", "shares its address with an earlier one; sluice has one listener for an address, whatever the name of the host; left out")
		return nil
	}
	locations, err := x.locations(s)
	if err != nil {
		return err
	}
	main, routes := x.routes(c, locations)
	if main == nil {
		x.say(d.at, "server", "none of its locations can be carried over, so it isn't")
		return nil
	}
	for _, group := range byOptions(fronts) {
		l := x.newListener(group, main)
		l.grpc, l.routes = true, slices.Clone(routes)
		if len(routes) > 0 {
			main.named = true
		}
		x.times(l, s, "grpc")
		idle := time.Minute // nginx's default
		if t := s.last("grpc_read_timeout"); t != nil {
			if v, ok := x.duration(t, time.Millisecond); ok {
				idle = v
			}
		}
		l.idleTimeout = &idle
		x.access(l, s)
		x.headers(l, s)
		if d := s.last("access_log"); d != nil && d.arg(0) == "off" {
			l.log = "off"
		} else if d != nil {
			x.lose(d, "a format of http {} has other variables; with access_log: at the top of sluice's file each RPC has a line")
		}
		for _, lc := range s.all("limit_conn") {
			x.lose(lc, "in http {} it counts requests, sluice's limits count connections")
		}
	}
	return nil
}

// hosts tells whether an address is that of an earlier http server.
func (x *nginx) hosts(fronts []*front) bool {
	before := false
	for _, a := range addresses(fronts, func(*front) {}) {
		before = before || x.webs[a]
		x.webs[a] = true
	}
	return before
}

// locations are those that pass gRPC on, in the order in which nginx tries
// them: exact ones, then the longest prefix first.
func (x *nginx) locations(s *scope) ([]location, error) {
	var all []location
	for _, d := range s.words["location"] {
		block, err := x.expand(d.block)
		if err != nil {
			return nil, err
		}
		inner := newScope(block, s)
		l := location{d: d, pass: last(inner.words["grpc_pass"]), prefix: d.arg(len(d.args) - 1)}
		what := "location " + strings.Join(d.args, " ")
		switch modifier := d.arg(0); {
		case len(d.args) == 1, modifier == "^~":
		case modifier == "=":
			l.exact = true
		default:
			x.say(d.at, what, "sluice's routes have no regular expressions; left out")
			continue
		}
		if !strings.HasPrefix(l.prefix, "/") {
			x.say(d.at, what, "is no path; left out")
			continue
		}
		if l.pass == nil {
			x.say(d.at, what, "has no grpc_pass, so it stays with nginx")
			continue
		}
		for _, w := range block {
			if w.name != "grpc_pass" {
				x.inLocation(w)
			}
		}
		all = append(all, l)
	}
	slices.SortStableFunc(all, func(a, b location) int {
		if a.exact != b.exact {
			if a.exact {
				return -1
			}
			return 1
		}
		return len(b.prefix) - len(a.prefix)
	})
	return all, nil
}

// inLocation is the note of a directive in a location: sluice's settings are a
// listener's.
func (x *nginx) inLocation(d *directive) {
	if carried(x.http, d.name) && d.name != "location" {
		x.lose(d, "sluice's settings are a listener's, not a route's; in a location it isn't carried over")
		return
	}
	x.unknown(d)
}

// routes makes routes of locations. The pool of `location /` is where the rest
// goes; without one that of the last location is.
func (x *nginx) routes(c *context, all []location) (main *pool, routes []route) {
	for _, l := range all {
		to := l.pass.arg(0)
		if scheme, rest, found := strings.Cut(to, "://"); found {
			if scheme != "grpc" {
				x.lose(l.pass, "sluice has no TLS; this location is left out")
				continue
			}
			to = rest
		}
		p, why := x.passTo(c, l.pass, to)
		if why != "" {
			x.lose(l.pass, why+"; this location is left out")
			continue
		}
		if l.prefix == "/" && !l.exact {
			main = p
			continue
		}
		method := l.prefix
		if !l.exact && !strings.HasSuffix(method, "/") {
			method += "*"
		}
		if p.direct {
			p.named = true
		}
		routes = append(routes, route{method: method, pool: p, at: l.d.at})
	}
	if main == nil && len(routes) > 0 {
		main = routes[len(routes)-1].pool
		x.say(routes[len(routes)-1].at, "server", "has no `location /`: where nginx answers 404, sluice passes on as in the last location here")
	}
	return main, routes
}
