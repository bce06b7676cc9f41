// SPDX-License-Identifier: Apache-2.0

package importer

import "time"

// file is the backends.yaml that comes out. Only what differs from a default
// of sluice is written, so fields say what the source means, in sluice's terms.
type file struct {
	accessLog    *accessLog
	stats        string // "": the default
	drainTimeout *time.Duration
	eventLoops   int
	pools        []*pool
	listeners    []*listener
}

type accessLog struct{ path, format string }

type pool struct {
	name     string
	balance  string // "": round_robin
	fail     bool   // all_ejected: fail
	backends []*backend
	check    *check
	at       place
	direct   bool // of an address in place of an upstream's name
	named    bool // several use it, so it can't be written in one listener
}

type backend struct {
	address     string // or srv
	srv         string
	weight      int
	maxFails    int
	failTimeout time.Duration
	maxConns    int
	backup      bool
	state       string // "": up
	slowStart   time.Duration
	at          place
	gone        bool // left out
}

func newBackend(address string, at place) *backend {
	return &backend{address: address, weight: 1, maxFails: 1, failTimeout: 10 * time.Second, at: at}
}

type check struct {
	kind              string // tcp or http
	interval, timeout time.Duration
	rise, fall        int
	port              int
	send, expect      string // send in Go's escapes, expect a regular expression
	path, host        string
	status            []string
	proxy             string // off, v1, v2; "": off
	close             bool   // on_down: close
}

type listener struct {
	name           string
	listen         []string
	pool           *pool
	grpc           bool
	routes         []route
	connectTimeout time.Duration  // 0: the default
	idleTimeout    *time.Duration // nil: the default
	tries          int
	tryTimeout     time.Duration
	retryOff       bool
	accept         bool
	send           string // "": off
	allow, deny    []string
	maxConns       int
	maxConnsPerIP  int
	keepalive      time.Duration
	deadPeer       time.Duration
	halfOff        bool // half_close: false
	upload         int64
	download       int64
	backlog        int
	log            string // "": on
	at             place
}

type route struct {
	method string
	pool   *pool
	at     place
	gone   bool // left out
}

// pools are those that a listener hands sessions to.
func (l *listener) pools() []*pool {
	all := []*pool{l.pool}
	for _, r := range l.routes {
		all = append(all, r.pool)
	}
	return all
}

// plain tells whether a pool has the defaults that one written in its listener has.
func (p *pool) plain() bool { return p.balance == "" && !p.fail && p.check == nil }

// inline tells whether a listener's pool can be written in it, under its name.
func (l *listener) inline() bool { return !l.pool.named && l.pool.plain() }
