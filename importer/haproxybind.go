// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"strings"
	"time"
)

// bind reads the addresses of a bind line, which may be several with commas.
func (h *haproxy) bind(l hline) []*front {
	o, six, ok := h.bindOptions(l)
	if !ok {
		return nil
	}
	var all []*front
	for s := range strings.SplitSeq(l.word(1), ",") {
		f := &front{options: o, at: l.at, said: "bind " + s, both: six != "v6only"}
		if why := f.bindAddress(s); why != "" {
			h.say(l.at, "bind "+s, why)
			continue
		}
		if f.local {
			h.say(l.at, "bind "+s, localhost)
		}
		all = append(all, f)
	}
	return all
}

// bindAddress reads one address as HAProxy writes it.
func (f *front) bindAddress(s string) (why string) {
	family, rest, found := strings.Cut(s, "@")
	switch {
	case strings.HasPrefix(s, "/"):
		return f.address("unix:"+s, false)
	case !found:
		family, rest = "", s
	case family == "unix":
		return f.address("unix:"+rest, false)
	case family != "ipv4" && family != "ipv6":
		return "sluice listens on TCP addresses and unix sockets with a path; left out"
	}
	colon := strings.LastIndexByte(rest, ':')
	if colon < 0 {
		return "no port, which HAProxy demands; left out"
	}
	host := rest[:colon]
	if family == "ipv6" && (host == "" || host == "*") || host == "::" {
		host = "[::]"
	}
	return f.hostAndPorts(host, rest[colon+1:])
}

// bindOptions reads what follows the address.
func (h *haproxy) bindOptions(l hline) (o frontOptions, six string, ok bool) {
	for i := 2; i < len(l.words); i++ {
		w := l.words[i]
		value := l.word(i + 1)
		switch w {
		case "accept-proxy":
			o.accept = true
		case "backlog":
			o.backlog, ok = count(value, 1, 1<<31-1)
			i = h.value(l, i, ok)
		case "maxconn":
			o.maxConns, ok = count(value, 0, 1<<31-1)
			i = h.value(l, i, ok)
		case "tcp-ut":
			o.deadPeer, ok = haproxyTime(value)
			if o.deadPeer < time.Millisecond || o.deadPeer > 596*time.Hour {
				o.deadPeer, ok = 0, false
			}
			i = h.value(l, i, ok)
		case "v4v6", "v6only":
			six = w
		case "ssl":
			h.say(l.at, l.String(), "sluice has no TLS; these addresses are left out")
			return o, six, false
		default:
			h.say(l.at, "bind ... "+w, "has no counterpart in sluice")
			if takesValue(bindValues, w) {
				i++
			}
		}
	}
	return o, six, true
}

// value is the index of the option's value, which is told if it isn't good.
func (h *haproxy) value(l hline, i int, ok bool) int {
	if !ok {
		h.say(l.at, l.words[0]+" ... "+l.words[i]+" "+l.word(i+1), "is nothing that HAProxy and sluice take here; the default is used")
	}
	return i + 1
}

// bindValues and serverValues are the options without a counterpart that have a value.
const (
	bindValues = ` alpn ca-file ca-ignore-err ca-sign-file ca-sign-pass ca-verify-file ciphers ciphersuites cc crl-file crt crt-ignore-err
 crt-list curves ecdhe expose-fd gid group id interface label level maxconn mode mss name namespace nbconn nice npn process proto
 severity-output shards ssl-max-ver ssl-min-ver tcp-md5sig thread tls-ticket-keys uid user verify guid-prefix quic-cc-algo `
	serverValues = ` addr agent-addr agent-inter agent-port agent-send alpn ca-file cc check-alpn check-proto check-sni ciphers ciphersuites
 cookie crl-file crt curves downinter error-limit fastinter guid hash-key id init-addr init-state label log-bufsize log-proto max-reuse maxqueue
 minconn namespace npn observe on-error on-marked-up pool-low-conn pool-max-conn pool-purge-delay proto proxy-v2-options redir
 resolve-net resolve-opts resolve-prefer resolvers set-proxy-v2-tlv-fmt shard sigalgs sni socks4 source ssl-max-ver ssl-min-ver tcp-md5sig
 tcp-ut track usesrc verify verifyhost ws ktls strict-maxconn `
)

func takesValue(words, w string) bool {
	for known := range strings.FieldsSeq(words) {
		if known == w {
			return true
		}
	}
	return false
}
