// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"sluice/config"
)

// kernelKeepalive is net.ipv4.tcp_keepalive_time unless somebody changes it:
// what a keepalive without a time is.
const kernelKeepalive = 2 * time.Hour

// front is an address to listen on with its options.
type front struct {
	host        string // "" is all of IPv4, "[::]" all of IPv6, or of both
	first, last int    // ports; 0 for a path
	path        string // of a unix socket
	both        bool   // [::] takes IPv4, too
	local       bool   // localhost, which may be more than 127.0.0.1
	options     frontOptions
	at          place
	said        string
}

// frontOptions are what sluice has once for all addresses of a listener.
type frontOptions struct {
	accept    bool
	backlog   int
	keepalive time.Duration
	deadPeer  time.Duration // HAProxy's only, as is what follows
	maxConns  int
}

const localhost = "taken as 127.0.0.1; if the name is [::1] here, too, that needs an address of its own"

// listenOf reads a listen of nginx. nil: it isn't carried over, and that is told.
func (x *nginx) listenOf(c *context, d *directive) *front {
	f := &front{at: d.at, said: d.String()}
	if why := f.address(d.arg(0), c.http); why != "" {
		x.lose(d, why)
		return nil
	}
	if f.local {
		x.lose(d, localhost)
	}
	for _, o := range d.args[min(1, len(d.args)):] {
		name, v := option(o)
		switch name {
		case "ssl", "quic":
			x.lose(d, "sluice has no TLS; this address is left out")
			return nil
		case "udp":
			x.lose(d, "sluice has no UDP; this address is left out")
			return nil
		case "proxy_protocol":
			f.options.accept = true
		case "backlog":
			n, ok := count(v, 1, 1<<31-1)
			if !ok {
				x.say(d.at, "listen ... "+o, "is no backlog that sluice takes; its default is used")
			}
			f.options.backlog = n
		case "so_keepalive":
			f.options.keepalive = x.soKeepalive(d, v)
		case "ipv6only":
			f.both = v == "off"
		case "bind", "reuseport", "default_server", "default", "http2":
			// What sluice does in any case, or what no other server of the address makes differ.
		default:
			x.say(d.at, "listen ... "+o, "has no counterpart in sluice")
		}
	}
	return f
}

// soKeepalive reads on, off, or [idle]:[interval]:[count].
func (x *nginx) soKeepalive(d *directive, v string) time.Duration {
	switch v {
	case "on":
		return kernelKeepalive
	case "off":
		return 0
	}
	part := strings.Split(v, ":")
	idle, ok := kernelKeepalive, len(part) == 3
	if ok && part[0] != "" {
		idle, ok = nginxTime(part[0])
		ok = ok && idle >= time.Second && idle <= 32767*time.Second
	}
	if !ok {
		x.say(d.at, "listen ... so_keepalive="+v, "is nothing that sluice's keepalive can be")
		return 0
	}
	every, _ := nginxTime(part[1])
	if part[1] != "" && every != max(idle/10, time.Second) || part[2] != "" && part[2] != "3" {
		x.say(d.at, "listen ... so_keepalive="+v, "sluice's probes come after each tenth of the idle time, and three in vain end a session")
	}
	return idle
}

// address reads the address itself; why is why it can't be listened on.
func (f *front) address(s string, http bool) (why string) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		f.path = path
		_, err := config.ParseListen(s)
		if err != nil {
			return err.Error()
		}
		return ""
	}
	host, ports := "", s
	if colon := strings.LastIndexByte(s, ':'); colon >= 0 && !strings.HasSuffix(s, "]") {
		host, ports = s[:colon], s[colon+1:]
	} else if strings.Trim(s, "0123456789-") != "" {
		if !http {
			return "no port, which nginx demands"
		}
		host, ports = s, "80"
	}
	return f.hostAndPorts(host, ports)
}

func (f *front) hostAndPorts(host, ports string) (why string) {
	from, to, ranged := strings.Cut(ports, "-")
	if !ranged {
		to = from
	}
	var ok1, ok2 bool
	f.first, ok1 = count(from, 1, 65535)
	f.last, ok2 = count(to, 1, 65535)
	if !ok1 || !ok2 || f.last < f.first {
		return strconv.Quote(ports) + " is no port, or range of ports"
	}
	switch host {
	case "", "*", "0.0.0.0":
		f.host = ""
		return ""
	case "localhost":
		f.host, f.local = "127.0.0.1", true
		return ""
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	switch {
	case err != nil:
		return "sluice listens on addresses, not on names; left out"
	case addr.Zone() != "" || addr.IsMulticast():
		return "no address that sluice can listen on; left out"
	case addr.Is6() && !addr.Is4In6():
		f.host = "[" + addr.String() + "]"
	default:
		f.host = addr.Unmap().String()
	}
	return ""
}

// addresses are all fronts as sluice writes them: ranges in pieces of the
// length that it allows, and all of IPv4 and of IPv6 on the same ports as one.
// narrow is told of an address that takes IPv6 only.
func addresses(fronts []*front, narrow func(*front)) []string {
	const v6 = "[::]"
	ports := func(f *front) [2]int { return [2]int{f.first, f.last} }
	four, six := map[[2]int]bool{}, map[[2]int]bool{}
	for _, f := range fronts {
		if f.path == "" && f.host == "" {
			four[ports(f)] = true
		}
		if f.host == v6 {
			six[ports(f)] = true
		}
	}
	var all []string
	for _, f := range fronts {
		host := f.host
		switch {
		case f.path != "":
			all = append(all, "unix:"+f.path)
			continue
		case host == "" && six[ports(f)]:
		case host == "":
			host = "0.0.0.0"
		case host == v6 && four[ports(f)]:
			continue // there already, as both
		case host == v6:
			host = ""
			if !f.both {
				narrow(f)
			}
		}
		for first := f.first; first <= f.last; first += config.MaxRange {
			last := min(first+config.MaxRange-1, f.last)
			s := fmt.Sprintf("%s:%d", host, first)
			if last > first {
				s += fmt.Sprintf("-%d", last)
			}
			all = append(all, s)
		}
	}
	return all
}

// byOptions groups fronts whose options are the same, in order.
func byOptions(fronts []*front) [][]*front {
	var keys []frontOptions
	groups := map[frontOptions][]*front{}
	for _, f := range fronts {
		if _, ok := groups[f.options]; !ok {
			keys = append(keys, f.options)
		}
		groups[f.options] = append(groups[f.options], f)
	}
	var all [][]*front
	for _, k := range keys {
		all = append(all, groups[k])
	}
	return all
}

// label is what a listener is called that has no better name.
func (f *front) label(prefix string) string {
	if f.path != "" {
		return cmp.Or(f.path[strings.LastIndexByte(f.path, '/')+1:], "unix")
	}
	return fmt.Sprintf("%s-%d", prefix, f.first)
}
