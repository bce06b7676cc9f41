// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sluice/config"
)

// fit leaves out what sluice refuses to have in one file: addresses that can't
// be listened on beside each other, backends that lead back to a listener, routes
// that no call takes, and what is then without a backend or an address. What is refused is asked of
// sluice's own reader, with a file of addresses only, until it has nothing to
// say against it.
func (w *work) fit(source string) error {
	w.prune()
	w.names()
	for {
		if len(w.out.listeners) == 0 {
			return fail(place{source, 1}, "the file", "has nothing that sluice could serve, so there is no backends.yaml")
		}
		s := w.skeleton()
		err := s.load()
		if err == nil {
			w.statsPort(s)
			return nil
		}
		var all config.Errors
		if !errors.As(err, &all) || !w.leaveOut(s, all) {
			return fail(place{source, 1}, "the file", fmt.Sprintf("becomes one that sluice refuses: %v", err))
		}
		w.prune()
	}
}

// skeleton is a file of addresses, with what each of its lines stands for.
type skeleton struct {
	lines []string
	items map[int]item      // by line, from 1
	names map[string]string // of its pools and listeners: what they are really called
}

// item is an address or a route in a skeleton.
type item struct {
	at   place
	what string
	drop func()
}

func (s *skeleton) add(format string, args ...any) int {
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
	return len(s.lines)
}

func (s *skeleton) load() error {
	_, err := config.Load("skeleton", []byte(strings.Join(s.lines, "\n")))
	return err
}

func (w *work) skeleton() *skeleton {
	s := &skeleton{items: map[int]item{}, names: map[string]string{}}
	s.add("stats: off")
	s.add("pools:")
	index := make(map[*pool]string, len(w.out.pools))
	for i, p := range w.out.pools {
		if p.named || !p.plain() {
			index[p] = fmt.Sprintf("p%d", i)
			s.names[index[p]] = p.name
			s.add("  %s:", index[p])
			s.backends(p)
		}
	}
	s.add("listeners:")
	for i, l := range w.out.listeners {
		name := fmt.Sprintf("l%d", i)
		s.names[name] = l.name
		s.add("  - name: %s", name)
		if l.inline() {
			s.backends(l.pool)
		} else {
			s.add("    pool: %s", index[l.pool])
		}
		s.add("    listen:")
		for j, a := range l.listen {
			s.items[s.add("      - %s", text(a))] = item{l.at, "listen " + a, func() { l.listen[j] = "" }}
		}
		if len(l.routes) > 0 {
			s.add("    protocol: grpc")
			s.add("    routes:")
		}
		for j, r := range l.routes {
			s.items[s.add("      - {methods: [%s], pool: %s}", text(r.method), index[r.pool])] = item{r.at, "location " + r.method, func() { l.routes[j].gone = true }}
		}
	}
	return s
}

func (s *skeleton) backends(p *pool) {
	s.add("    backends:")
	for j, b := range p.backends {
		if b.srv != "" {
			s.add("      - srv-%d.invalid:1", j)
			continue
		}
		s.items[s.add("      - %s", text(b.address))] = item{b.at, "server " + b.address, func() { b.gone = true }}
	}
}

var (
	skeletonPlace = regexp.MustCompile(` at (\d+):\d+`)
	skeletonName  = regexp.MustCompile(`"[pl]\d+"`)
)

// leaveOut drops what the errors are about, with a note that gives the reader's
// reason and the source's places, and says whether that was anything.
func (w *work) leaveOut(s *skeleton, all config.Errors) bool {
	done := map[int]bool{}
	for _, e := range all {
		it, ok := s.items[e.Line]
		if !ok || done[e.Line] {
			continue
		}
		done[e.Line] = true
		why := skeletonPlace.ReplaceAllStringFunc(e.Msg, func(m string) string {
			line, err := strconv.Atoi(skeletonPlace.FindStringSubmatch(m)[1])
			if err != nil {
				return m
			}
			at := s.items[line].at
			return fmt.Sprintf(" at %s:%d", printable(at.file), at.line)
		})
		why = skeletonName.ReplaceAllStringFunc(why, func(m string) string {
			if name, ok := s.names[strings.Trim(m, `"`)]; ok {
				return strconv.Quote(name)
			}
			return m
		})
		w.say(it.at, it.what, "left out: "+why)
		it.drop()
	}
	return len(done) > 0
}

// prune drops pools without backends, and listeners without a pool or an address.
func (w *work) prune() {
	for _, p := range w.out.pools {
		p.backends = slices.DeleteFunc(p.backends, func(b *backend) bool { return b.gone })
	}
	w.out.listeners = slices.DeleteFunc(w.out.listeners, func(l *listener) bool {
		was := strings.Join(l.listen, " ")
		l.listen = slices.DeleteFunc(l.listen, func(a string) bool { return a == "" })
		l.routes = slices.DeleteFunc(l.routes, func(r route) bool {
			if r.gone || len(r.pool.backends) > 0 {
				return r.gone
			}
			w.say(r.at, r.method, "no backend of its pool is carried over, so the route isn't")
			return true
		})
		switch {
		case len(l.pool.backends) == 0:
			w.say(l.at, "listen "+was, "no backend behind it is carried over, so the listener isn't")
		case len(l.listen) == 0:
			w.say(l.at, "listener "+l.name, "none of its addresses is carried over, so the listener isn't")
		default:
			return false
		}
		return true
	})
	users := map[*pool]int{}
	for _, l := range w.out.listeners {
		for i, p := range l.pools() {
			users[p]++
			p.named = p.named || i > 0
		}
	}
	w.out.pools = slices.DeleteFunc(w.out.pools, func(p *pool) bool { return users[p] == 0 })
	for p, n := range users {
		p.named = p.named || n > 1
	}
}

// statsPort moves the statistics where a listener has their default address.
func (w *work) statsPort(s *skeleton) {
	s.lines[0] = ""
	if s.load() == nil {
		return
	}
	used := map[uint16]bool{}
	for _, l := range w.out.listeners {
		for _, a := range l.listen {
			fronts, err := config.ParseFronts(a)
			if err != nil {
				continue // the skeleton had none
			}
			for _, f := range fronts {
				used[f.Port] = true
			}
		}
	}
	w.out.stats = "off"
	for port := uint16(config.DefaultStatsPort); port > 0; port++ {
		if !used[port] {
			w.out.stats = fmt.Sprintf("127.0.0.1:%d", port)
			return
		}
	}
}

// names makes the names of listeners and pools unique and such as sluice takes.
func (w *work) names() {
	pools, listeners := taken{}, taken{}
	for _, p := range w.out.pools {
		if p.named || !p.plain() {
			p.name = unique(cleanName(p.name), pools)
		}
	}
	for _, l := range w.out.listeners {
		if l.inline() { // then its name is the pool's, too
			l.name = unique(cleanName(l.name), listeners, pools)
		} else {
			l.name = unique(cleanName(l.name), listeners)
		}
	}
}

// taken are the names that there are, each with the number of the last one
// that was made of it.
type taken map[string]int

// unique takes the name, or one that begins with it, in all of the sets.
func unique(name string, in ...taken) string {
	has := func(s string) bool {
		return slices.ContainsFunc(in, func(t taken) bool { return t[s] > 0 })
	}
	s := name
	for n := max(in[0][name], 1); has(s); {
		n++
		in[0][name] = n
		s = fmt.Sprintf("%s-%d", name, n)
	}
	for _, t := range in {
		t[s] = max(t[s], 1)
	}
	return s
}

// cleanName is a name that sluice takes, as near as can be.
func cleanName(s string) string {
	if s = strings.TrimSpace(s); s == "" {
		return "unnamed"
	}
	s = printable(s)
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "")
	}
	return strings.TrimSpace(s)
}
