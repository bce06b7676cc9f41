// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"encoding/json"
	"fmt"
	stdlog "log"
	"net/http"
	"net/url"
	"strconv"

	"github.com/rs/zerolog"
)

// defaultFlows is how many sessions /flows shows unless told.
const defaultFlows = 1000

// handler answers the endpoint's requests.
type handler struct {
	src     Source
	metrics http.Handler
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "it can only be read: GET or HEAD", http.StatusMethodNotAllowed)
		return
	}
	switch r.URL.Path {
	case "/healthz":
		h.health(w)
	case "/stats":
		writeJSON(w, h.src.Snapshot().complete())
	case "/flows":
		h.flows(w, r)
	case "/metrics":
		h.metrics.ServeHTTP(w, r)
	default:
		http.Error(w, "nothing here; there are /healthz, /stats, /flows and /metrics", http.StatusNotFound)
	}
}

func (h *handler) health(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if h.src.Stopping() {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, "stopping")
		return
	}
	fmt.Fprintln(w, "ok")
}

func (h *handler) flows(w http.ResponseWriter, r *http.Request) {
	limit, by := defaultFlows, NewestFirst
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		http.Error(w, "the query can't be read, must be such as limit=100&sort=bytes: "+err.Error(), http.StatusBadRequest)
		return
	}
	if q.Has("limit") {
		n, err := strconv.ParseUint(q.Get("limit"), 10, 31)
		if err != nil || n == 0 || n > MaxFlows {
			http.Error(w, fmt.Sprintf("limit must be a number from 1 to %d", MaxFlows), http.StatusBadRequest)
			return
		}
		limit = int(n)
	}
	if q.Has("sort") {
		if by = FlowOrder(q.Get("sort")); !by.Valid() {
			http.Error(w, "sort must be new, bytes, idle or age", http.StatusBadRequest)
			return
		}
	}
	flows := h.src.Flows(limit, by)
	if flows == nil {
		flows = []Flow{}
	}
	writeJSON(w, flows)
}

func writeJSON(w http.ResponseWriter, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "no answer can be made: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	// A client that has gone is nobody to tell.
	_, _ = w.Write(append(body, '\n'))
}

// complete makes lists that are nil empty ones, so that they are [] in JSON.
func (s *Snapshot) complete() *Snapshot {
	if s.Listeners == nil {
		s.Listeners = []ListenerStats{}
	}
	for i := range s.Listeners {
		if s.Listeners[i].Listen == nil {
			s.Listeners[i].Listen = []string{}
		}
		if s.Listeners[i].Fallbacks == nil {
			s.Listeners[i].Fallbacks = map[string]uint64{}
		}
	}
	if s.Pools == nil {
		s.Pools = []PoolStats{}
	}
	for i := range s.Pools {
		if s.Pools[i].Backends == nil {
			s.Pools[i].Backends = []BackendStats{}
		}
	}
	return s
}

// quietLog takes what net/http and the metrics handler have to complain of: a
// peer can cause it, so it shows only when it is looked for.
func quietLog(log zerolog.Logger) *stdlog.Logger {
	return stdlog.New(debugWriter{log}, "", 0)
}

type debugWriter struct{ log zerolog.Logger }

func (w debugWriter) Write(p []byte) (int, error) {
	w.log.Debug().Msg(string(p))
	return len(p), nil
}
