// SPDX-License-Identifier: Apache-2.0

package importer

import "strings"

// Words of a section that are dealt with where they have a meaning: of the one
// that takes clients, of the one that has servers, and options of either.
const (
	frontWords   = " mode bind default_backend maxconn backlog timeout:client option:clitcpka option:tcpka clitcpka-idle description "
	backWords    = " mode balance server default-server retries timeout:connect timeout:server timeout:tunnel timeout:check option:srvtcpka option:tcpka srvtcpka-idle option:tcp-check option:httpchk option:redis-check option:ssl-hello-chk option:mysql-check option:pgsql-check option:smtpchk option:ldap-check option:spop-check tcp-check http-check option:redispatch option:allbackups description hash-type "
	neitherWords = " option:splice-auto option:splice-request option:splice-response option:tcp-smart-accept option:tcp-smart-connect option:contstats "
)

// haproxyWhy says of words without a counterpart why there is none.
func haproxyWhy() map[string]string {
	const names = "names are resolved by the system's resolver, at load and each 30 s"
	const log = "sluice logs to a file: write access_log: {path: ...}"
	const unit = "the unit that starts sluice says such things"
	return map[string]string{
		"acl":                      "sluice chooses by nothing but the listener",
		"use_backend":              "sluice chooses a pool by nothing but the listener",
		"use-server":               "sluice chooses backends by the pool's balance only",
		"tcp-request":              "sluice's rules are allow, deny, max_conns and max_conns_per_ip of a listener",
		"tcp-response":             "sluice looks at nobody's bytes",
		"stick-table":              "balance: hash keeps a client's address at its backend",
		"stick":                    "balance: hash keeps a client's address at its backend",
		"cookie":                   "sluice has no sessions of HTTP",
		"log":                      log,
		"log-format":               log,
		"log-tag":                  log,
		"option:tcplog":            log,
		"option:httplog":           log,
		"option:log-health-checks": "sluice's own log has a line for each change",
		"option:dontlognull":       "access_log: nonempty of a listener does this, once there is an access_log",
		"option:logasap":           "sluice logs a session at its end",
		"chroot":                   unit,
		"user":                     unit,
		"group":                    unit,
		"uid":                      unit,
		"gid":                      unit,
		"daemon":                   "sluice runs in the foreground, under systemd",
		"master-worker":            "sluice is one process; SIGHUP reloads it",
		"pidfile":                  "sluice writes no pid file",
		"maxconn":                  "sluice's limits are max_conns of a listener and of a backend",
		"ulimit-n":                 "sluice raises its limit to the hard one; LimitNOFILE= of the unit sets that",
		"stats":                    "sluice answers /stats, /flows and /metrics at `stats:`, 127.0.0.1:9585",
		"errorfile":                "HTTP stays with HAProxy",
		"resolvers":                names,
		"init-addr":                names,
		"resolve-prefer":           names,
		"source":                   "sluice has no source addresses of one's choice",
		"addr":                     "sluice checks the backend's own address",
		"agent-check":              "sluice has no agents; its checks are tcp, http and grpc",
		"fastinter":                "sluice checks at one interval",
		"downinter":                "sluice checks at one interval",
		"observe":                  "max_fails and fail_timeout of a backend count failed connections",
		"error-limit":              "max_fails and fail_timeout of a backend count failed connections",
		"on-error":                 "max_fails and fail_timeout of a backend count failed connections",
		"maxqueue":                 "sluice queues nobody",
		"minconn":                  "sluice's max_conns is one number",
		"timeout:queue":            "sluice queues nobody: with no backend to pick a session ends",
		"timeout:client-fin":       "idle_timeout also holds for a session of which one side has ended",
		"timeout:server-fin":       "idle_timeout also holds for a session of which one side has ended",
		"timeout:http-request":     "of mode http",
		"timeout:http-keep-alive":  "of mode http",
		"ssl-default-bind-ciphers": "sluice has no TLS",
		"ssl-default-bind-options": "sluice has no TLS",
	}
}

// key is the word that a line is about: of options and timeouts, the second one too.
func (l hline) key() string {
	w := l.words[0]
	if w == "no" {
		w = l.word(1)
		if w == "option" {
			return "option:" + l.word(2)
		}
		return w
	}
	if w == "option" || w == "timeout" {
		return w + ":" + l.word(1)
	}
	return w
}

// rest is the notes of all lines of a section, and once of its defaults, that
// nothing else deals with.
func (h *haproxy) rest(s *hsection) {
	words := neitherWords
	if s.kind != "backend" {
		words += frontWords
	}
	if s.kind != "frontend" {
		words += backWords
	}
	h.lost(s, words)
	for d := s.from; d != nil && !d.told; d = d.from {
		d.told = true
		h.lost(d, neitherWords+frontWords+backWords)
	}
}

func (h *haproxy) lost(s *hsection, words string) {
	for _, l := range s.lines {
		if !strings.Contains(words, " "+l.key()+" ") {
			h.unknown(l)
		}
	}
}

// unknown is the note of a line that isn't carried over.
func (h *haproxy) unknown(l hline) {
	h.say(l.at, l.String(), why(h.words, l.key()))
}
