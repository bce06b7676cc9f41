// SPDX-License-Identifier: Apache-2.0

package grpc

import (
	"strings"
	"sync"

	"sluice/config"
	"sluice/session"
)

// router finds the route of a method: the first one that matches.
type router struct {
	exact    map[string]int
	prefixes []prefix // rising by route
}

type prefix struct {
	text  string
	route int
}

func newRouter(routes []config.Route) *router {
	r := &router{exact: map[string]int{}}
	for i, route := range routes {
		for _, m := range route.Methods {
			r.add(m, i)
		}
	}
	return r
}

func (r *router) add(m string, route int) {
	switch {
	case strings.HasSuffix(m, "*"):
		r.prefixes = append(r.prefixes, prefix{strings.TrimSuffix(m, "*"), route})
	case strings.HasSuffix(m, "/"):
		r.prefixes = append(r.prefixes, prefix{m, route})
	case strings.HasPrefix(m, "/"):
		r.addExact(m, route)
	default:
		for _, one := range config.MethodSet(m) {
			r.addExact(one, route)
		}
	}
}

func (r *router) addExact(m string, route int) {
	if _, before := r.exact[m]; !before {
		r.exact[m] = route
	}
}

// match is the route of a method; -1: none.
func (r *router) match(method string) int {
	best, found := r.exact[method]
	if !found {
		best = -1
	}
	for _, p := range r.prefixes {
		if found && p.route >= best {
			break
		}
		if strings.HasPrefix(method, p.text) {
			return p.route
		}
	}
	return best
}

// routes are the routers of the settings that are in use.
type routes struct {
	reads map[string]bool // the methods of the built-in sets of reads

	mu sync.RWMutex
	by map[*session.Settings]*router
}

// mostRouters is how many there are at most: beyond it those of old settings go,
// and the others are made again.
const mostRouters = 256

func newRoutes() *routes {
	return &routes{reads: config.ReadMethods(), by: map[*session.Settings]*router{}}
}

// of is the router of these settings.
func (r *routes) of(set *session.Settings) *router {
	r.mu.RLock()
	one := r.by[set]
	r.mu.RUnlock()
	if one != nil {
		return one
	}
	one = newRouter(set.Config.GRPC.Routes)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.by) >= mostRouters {
		clear(r.by)
	}
	r.by[set] = one
	return one
}
