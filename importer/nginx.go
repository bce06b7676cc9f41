// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"errors"
	"io/fs"
	"path/filepath"
	"time"
)

// nginx is the import of an nginx.conf.
type nginx struct {
	*work
	root      string   // the directory that relative includes are in
	including []string // the files whose includes are being followed
	logs      logs
	zones     map[string]*zone
	used      map[*pool]bool  // by a listener
	webs      map[string]bool // addresses of http servers

	words        map[string]string   // meaningless, once
	usual        map[string][]string // usual, once
	entered      int                 // directives of stream{} and http{} themselves
	stream, http *context
}

// context is all that stream{} or http{} says. Its servers become listeners
// once all upstreams and formats are known, wherever they stand.
type context struct {
	http      bool
	scope     *scope
	upstreams map[string]*upstream
	servers   []*directive
}

// scope is a block's directives by name, each with its order in the block; what
// it lacks is the outer block's.
type scope struct {
	words map[string][]*directive
	outer *scope
}

func newScope(list []*directive, outer *scope) *scope {
	s := &scope{words: make(map[string][]*directive, len(list)), outer: outer}
	for i, d := range list {
		d.order = i
		s.words[d.name] = append(s.words[d.name], d)
	}
	return s
}

// all are the directives of that name, of the innermost block that has any.
func (s *scope) all(name string) []*directive {
	for ; s != nil; s = s.outer {
		if found := s.words[name]; found != nil {
			return found
		}
	}
	return nil
}

// last is the last of them, or nil.
func (s *scope) last(name string) *directive {
	all := s.all(name)
	if all == nil {
		return nil
	}
	return all[len(all)-1]
}

// on tells whether a switch is on.
func (s *scope) on(name string) bool {
	d := s.last(name)
	return d != nil && d.arg(0) == "on"
}

// lose is the note of a directive that isn't carried over.
func (w *work) lose(d *directive, why string) { w.say(d.at, d.String(), why) }

// duration reads a directive's time, which must be least at least.
func (x *nginx) duration(d *directive, least time.Duration) (time.Duration, bool) {
	t, ok := nginxTime(d.arg(0))
	switch {
	case !ok:
		x.lose(d, "is no time that nginx knows, up to ten years; sluice's default is used")
	case t < least:
		x.lose(d, "is too short for sluice, its default is used")
		ok = false
	}
	return t, ok
}

// reason is why a file can't be read, without its name.
func reason(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

// nginx imports an nginx.conf.
func (w *work) nginx(path, src string) error {
	x := &nginx{work: w, root: filepath.Dir(path), including: []string{path}, zones: map[string]*zone{}, used: map[*pool]bool{}, webs: map[string]bool{}}
	list, err := x.parse(path, src)
	if err != nil {
		return err
	}
	if list, err = x.expand(list); err != nil {
		return err
	}
	x.stream = &context{scope: newScope(nil, nil), upstreams: map[string]*upstream{}}
	x.http = &context{http: true, scope: newScope(nil, nil), upstreams: map[string]*upstream{}}
	for _, d := range list {
		if err := x.top(d); err != nil {
			return err
		}
	}
	for _, c := range []*context{x.stream, x.http} {
		for _, s := range c.servers {
			if err := x.server(c, s); err != nil {
				return err
			}
		}
		x.finish(c)
	}
	x.logs.settle(x.work)
	return nil
}

// top handles a directive outside of all blocks.
func (x *nginx) top(d *directive) error {
	switch d.name {
	case "stream":
		list, err := x.expand(d.block)
		if err != nil {
			return err
		}
		return x.enter(x.stream, list)
	case "server", "upstream":
		x.say(d.at, d.name, "stands outside of stream {}; taken as if it stood inside")
		return x.enter(x.stream, []*directive{d})
	case "http":
		return x.enterHTTP(d)
	case "events":
		list, err := x.expand(d.block)
		if err != nil {
			return err
		}
		for _, e := range list {
			x.unknown(e)
		}
	case "worker_processes":
		if n, ok := count(d.arg(0), 1, 1024); ok {
			x.out.eventLoops = n
		} else if d.arg(0) != "auto" {
			x.lose(d, "is no number of event loops, so there is one for each CPU")
		}
	case "worker_shutdown_timeout":
		if t, ok := x.duration(d, 0); ok {
			x.out.drainTimeout = &t
		}
	default:
		x.unknown(d)
	}
	return nil
}

// enter takes what a stream{} or http{} says.
func (x *nginx) enter(c *context, list []*directive) error {
	for _, d := range list {
		switch d.name {
		case "upstream":
			block, err := x.expand(d.block)
			if err != nil {
				return err
			}
			x.upstream(c, d, block)
		case "server":
			c.servers = append(c.servers, d)
		case "log_format":
			if !c.http {
				x.logs.format(d)
			}
		case "limit_conn_zone":
			x.zone(d)
		default:
			x.entered++
			d.order = x.entered
			c.scope.words[d.name] = append(c.scope.words[d.name], d)
			if !carried(c, d.name) {
				x.unknown(d)
			}
		}
	}
	return nil
}

// finish gives the context's pools to the file, in its order, and names those
// that nobody uses.
func (x *nginx) finish(c *context) {
	for _, u := range inOrderOf(c.upstreams) {
		switch {
		case u.pool != nil:
			x.out.pools = append(x.out.pools, u.pool)
		case !c.http:
			x.say(u.at, "upstream "+u.name, "no server that is carried over passes to it")
		}
	}
}
