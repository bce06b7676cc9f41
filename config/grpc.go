// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"slices"
	"strings"
)

// GRPC is what a listener of protocol grpc has beside the rest.
type GRPC struct {
	MaxMessage  int64 // bytes of one message, either way; 0: no limit
	Connections int   // to each backend; more are opened while their streams are used up
	RetryOff    bool  // retry: off
	Routes      []Route
}

// Route says which calls go to which pool.
type Route struct {
	// Methods are as in the file: /package.Service/Method, /package.Service/, a
	// prefix that ends in *, or the name of a set (MethodSet).
	Methods    []string
	Pool       string
	Broadcast  bool // to every backend of the pool
	Idempotent bool // may be sent again when a connection broke
	Pos        Position
	poolAt     Position
}

// maxConnections bounds connections to one backend that are held on purpose.
const maxConnections = 1024

func newGRPC() *GRPC { return &GRPC{Connections: 1} }

// speaksGRPC tells a listener of protocol grpc, whose other keys depend on it.
func (d *decoder) speaksGRPC(n *node) bool {
	p := n.get("protocol")
	return p != nil && p.value.kind == textKind && p.value.text == "grpc"
}

// grpcOptions are the keys that only protocol grpc has.
func (d *decoder) grpcOptions(l *Listener, what string) []field {
	only := func(key string, read func(p pair, g *GRPC)) field {
		return field{key, func(p pair) {
			if l.GRPC == nil {
				d.fail(p.keyPos, "%s is of protocol grpc only, must be left out of %s, or protocol: grpc", key, what)
				return
			}
			read(p, l.GRPC)
		}}
	}
	return []field{
		only("max_message", func(p pair, g *GRPC) { d.bytes(p, "bytes of one message", &g.MaxMessage) }),
		only("connections", func(p pair, g *GRPC) { d.integer(p, 1, maxConnections, &g.Connections) }),
		only("retry", func(p pair, g *GRPC) {
			if isOff(p.value) {
				g.RetryOff = true
				return
			}
			word := "safe"
			choice(d, p, &word, "safe", "off")
		}),
		only("routes", func(p pair, g *GRPC) {
			d.list(p, "routes, each with methods and pool", func(n *node) { g.Routes = append(g.Routes, d.route(n)) })
		}),
	}
}

// notForGRPC refuses the keys that mean nothing where calls are balanced.
func (d *decoder) notForGRPC(n *node, what string) {
	for _, key := range []string{"datapath", "half_close", "upload_rate", "download_rate"} {
		if p := n.get(key); p != nil {
			d.fail(p.keyPos, "%s has no meaning with protocol grpc, must be left out of %s", key, what)
		}
	}
	if p := n.get("proxy_protocol"); p != nil {
		if send := p.value.get("send"); send != nil && !isOff(send.value) {
			d.fail(send.value.pos, "send is %s, must be off with protocol grpc: calls of many clients share a connection to a backend", describe(send.value))
		}
	}
}

// route reads one route.
func (d *decoder) route(n *node) (r Route) {
	r.Pos = n.pos
	if n.kind == nullKind {
		d.fail(n.pos, "a route is empty, must be a mapping with methods and pool")
		return r
	}
	d.fields(n, "a route", []field{
		{"methods", func(p pair) {
			if p.value.kind == nullKind || p.value.kind == listKind && len(p.value.items) == 0 {
				d.fail(p.keyPos, "methods of a route is empty, must have "+methodForms)
			}
			d.list(p, "methods", func(n *node) {
				if s, ok := d.text(n, "method", methodForms); ok {
					d.method(n, s)
					r.Methods = append(r.Methods, s)
				}
			})
		}},
		{"pool", func(p pair) {
			r.Pool, _ = d.text(p.value, "pool", "the name of a pool")
			r.poolAt = p.value.pos
		}},
		{"broadcast", func(p pair) { d.boolean(p, &r.Broadcast) }},
		{"idempotent", func(p pair) { d.boolean(p, &r.Idempotent) }},
	})
	if n.kind == mapKind {
		for _, key := range []string{"methods", "pool"} {
			if !n.has(key) {
				d.fail(n.pos, "a route has no %s, must have methods and pool", key)
			}
		}
	}
	return r
}

const methodForms = "/package.Service/Method, /package.Service/, a prefix that ends in *, or the name of a set such as milvus2-reads"

// method checks an entry of methods.
func (d *decoder) method(n *node, s string) {
	if MethodSet(s) != nil || s == "*" {
		return
	}
	rest, prefix := strings.CutSuffix(s, "*")
	service, method, slash := strings.Cut(strings.TrimPrefix(rest, "/"), "/")
	switch {
	case !strings.HasPrefix(s, "/"):
		near := nearest(s, MethodSets())
		if near != "" {
			near = ", did you mean " + near + "?"
		}
		d.fail(n.pos, "method is %s, must be %s%s", quote(s), methodForms, near)
	case strings.ContainsAny(rest, "* ?#") || strings.Contains(method, "/"):
		d.fail(n.pos, "method is %s, must be %s", quote(s), methodForms)
	case !prefix && (!slash || service == ""):
		d.fail(n.pos, "method is %s, must be %s", quote(s), methodForms)
	}
}

// refs are the places where routes name pools.
func (g *GRPC) refs() (refs []poolRef) {
	if g == nil {
		return nil
	}
	for _, r := range g.Routes {
		if r.Pool != "" {
			refs = append(refs, poolRef{r.Pool, r.poolAt})
		}
	}
	return refs
}

// pools are the names of all pools that the listener's sessions may go to, each once.
func (l *Listener) pools() []string {
	names := []string{l.Pool}
	if l.GRPC == nil {
		return names
	}
	for _, r := range l.GRPC.Routes {
		if !slices.Contains(names, r.Pool) {
			names = append(names, r.Pool)
		}
	}
	return names
}

// bare is a copy without places.
func (g *GRPC) bare() *GRPC {
	if g == nil {
		return nil
	}
	b := *g
	b.Routes = slices.Clone(g.Routes)
	for i := range b.Routes {
		b.Routes[i].Pos, b.Routes[i].poolAt = Position{}, Position{}
	}
	return &b
}

func (g *GRPC) dump(w *strings.Builder) {
	if g == nil {
		return
	}
	retry := "safe"
	if g.RetryOff {
		retry = "off"
	}
	fmt.Fprintf(w, "    max_message: %s\n    connections: %d\n    retry: %s\n", rate(g.MaxMessage), g.Connections, retry)
	if len(g.Routes) == 0 {
		fmt.Fprintln(w, "    routes: []")
		return
	}
	fmt.Fprintln(w, "    routes:")
	for _, r := range g.Routes {
		methods := make([]string, len(r.Methods))
		for i, m := range r.Methods {
			methods[i] = scalar(m)
		}
		fmt.Fprintf(w, "      - methods: [%s]\n        pool: %s\n        broadcast: %t\n        idempotent: %t\n",
			strings.Join(methods, ", "), scalar(r.Pool), r.Broadcast, r.Idempotent)
	}
}
