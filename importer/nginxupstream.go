// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"sluice/config"
)

// upstream is an upstream{} of nginx.
type upstream struct {
	name  string
	at    place
	index int
	list  []*directive
	http  bool
	pool  *pool // once a server passes to it
}

func (x *nginx) upstream(c *context, d *directive, block []*directive) {
	name := d.arg(0)
	if _, twice := c.upstreams[name]; twice {
		x.lose(d, "is defined twice, the first one counts; nginx refuses this file")
		return
	}
	c.upstreams[name] = &upstream{name: name, at: d.at, index: len(c.upstreams), list: block, http: c.http}
}

func inOrderOf(all map[string]*upstream) []*upstream {
	var out []*upstream
	for _, u := range all {
		out = append(out, u)
	}
	slices.SortFunc(out, func(a, b *upstream) int { return cmp.Compare(a.index, b.index) })
	return out
}

// use makes the pool of an upstream, the first time.
func (x *nginx) use(u *upstream) *pool {
	if u.pool != nil {
		return u.pool
	}
	p := &pool{name: u.name, at: u.at}
	u.pool = p
	for _, d := range u.list {
		x.upstreamWord(u, p, d)
	}
	x.lastResort(p)
	return p
}

// lastResort keeps to nginx's way with a pool whose backends have all failed:
// nobody is tried until the first fail_timeout has passed.
func (x *nginx) lastResort(p *pool) {
	p.fail = len(p.backends) > 1
	for _, b := range p.backends {
		a, err := config.ParseBackend(b.address)
		p.fail = p.fail || b.srv != "" || err == nil && a.Name != ""
	}
}

func (x *nginx) upstreamWord(u *upstream, p *pool, d *directive) {
	switch d.name {
	case "server":
		x.peer(u, p, d)
	case "zone":
		// All workers of sluice share their counters.
	case "least_conn":
		p.balance = "least_conn"
	case "hash":
		p.balance = "hash"
		x.hashKey(p, d)
	case "ip_hash":
		p.balance = "hash"
		x.lose(d, "sluice's hash is of the whole address, not of an IPv4 address's first three bytes")
	case "random":
		p.balance = "random_two"
		switch {
		case d.arg(0) != "two":
			x.lose(d, "sluice's random_two takes the less loaded of two picks, not the first one")
		case d.arg(1) != "" && d.arg(1) != "least_conn":
			x.lose(d, "of the two picks the one with fewer sessions is taken")
		}
	case "least_time":
		p.balance = "least_conn"
		x.lose(d, "sluice doesn't balance by times; least_conn is used")
	case "keepalive", "keepalive_requests", "keepalive_timeout", "keepalive_time":
		if !u.http {
			x.unknown(d)
		} // sluice keeps its gRPC connections in any case
	default:
		x.unknown(d)
	}
}

// hashKey says what of a hash's key is lost.
func (x *nginx) hashKey(p *pool, d *directive) {
	switch strings.Trim(d.arg(0), "${}") {
	case "remote_addr", "binary_remote_addr", "proxy_protocol_addr":
	default:
		p.balance = ""
		x.lose(d, "sluice hashes by the client's address only; round_robin is used")
	}
}

// peer reads a server of an upstream.
func (x *nginx) peer(u *upstream, p *pool, d *directive) {
	b := newBackend(d.arg(0), d.at)
	service := ""
	for _, o := range d.args[min(1, len(d.args)):] {
		name, v := option(o)
		ok := true
		switch name {
		case "weight":
			b.weight, ok = count(v, 1, 65535)
		case "max_fails":
			b.maxFails, ok = count(v, 0, 1<<31-1)
		case "max_conns":
			b.maxConns, ok = count(v, 0, 1<<31-1)
		case "fail_timeout":
			b.failTimeout, ok = nginxTime(v)
			if ok && b.failTimeout == 0 {
				b.failTimeout = time.Second
				x.say(d.at, d.name+" ... "+o, "sluice has no time of 0; 1s is used, as nginx counts whole seconds")
			}
		case "slow_start":
			b.slowStart, ok = nginxTime(v)
		case "backup":
			b.backup = true
		case "down":
			b.state = "down"
		case "drain":
			b.state = "drain"
		case "resolve":
			// sluice resolves all names again and again.
		case "service":
			service = v
		default:
			x.say(d.at, d.name+" ... "+o, "has no counterpart in sluice")
		}
		if !ok {
			x.say(d.at, d.name+" ... "+o, "is nothing that nginx or sluice takes here; the default is used")
			reset(b, name)
		}
	}
	if service != "" {
		b.srv, b.address = serviceName(service, b.address), ""
		if a, err := config.ParseBackend(b.srv); err != nil || a.Name != b.srv {
			x.lose(d, "makes no name that SRV records could have; left out")
			return
		}
	} else if a, why := backendAddress(b.address, u.http); why != "" {
		x.lose(d, why+"; left out")
		return
	} else {
		b.address = a
	}
	p.backends = append(p.backends, b)
}

// reset gives an option its default back.
func reset(b *backend, name string) {
	usual := newBackend(b.address, b.at)
	switch name {
	case "weight":
		b.weight = usual.weight
	case "max_fails":
		b.maxFails = usual.maxFails
	case "max_conns":
		b.maxConns = usual.maxConns
	case "fail_timeout":
		b.failTimeout = usual.failTimeout
	case "slow_start":
		b.slowStart = 0
	}
}

// serviceName is the name of SRV records as nginx makes it of service= and the
// server's name.
func serviceName(service, host string) string {
	if !strings.Contains(service, ".") {
		service = "_" + service + "._tcp"
	}
	return service + "." + strings.TrimSuffix(host, ".")
}

// backendAddress is an address as sluice writes it; why is what is wrong with it.
func backendAddress(s string, http bool) (address, why string) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok && http {
		s = "unix:" + strings.TrimSuffix(path, ":")
	}
	a, err := config.ParseBackend(s)
	switch {
	case err != nil:
		return "", err.Error()
	case a.Portless() && http:
		a.Port = 80
	case a.Portless():
		return "", "no port, which nginx demands"
	}
	return a.String(), ""
}
