// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// TestStats: what the endpoint says of a running instance, while sessions live.
func TestStats(t *testing.T) {
	t.Parallel()
	for _, u := range users() {
		t.Run(u.name, func(t *testing.T) {
			addr := front(t)
			b := tcp(t, echo).addr
			i := startAs(t, u, one(addr, b))
			p := ping(t, addr)
			for range 99 { // far enough for the kernel to have taken over
				if err := p.again(); err != nil {
					t.Fatal(err)
				}
			}
			d := i.doc() // current when read, spliced bytes too
			if len(d.Listeners) != 1 || len(d.Pools) != 1 || len(d.Pools[0].Backends) != 1 {
				t.Fatalf("/stats: %+v", d)
			}
			l, k := d.Listeners[0], d.Pools[0].Backends[0]
			if l.Name != "l" || l.Pool != "l" || l.Active != 1 || l.Total != 1 || l.BytesReceived != 800 || l.BytesSent != 800 {
				t.Errorf("listener: %+v", l)
			}
			if k.Address != b || k.State != "up" || k.Weight != 1 || k.Active != 1 || k.Total != 1 || k.BytesReceived != 800 || k.BytesSent != 800 {
				t.Errorf("backend: %+v", k)
			}
			if want := map[bool]string{true: "splice", false: "relay"}[u.cred == nil && os.Geteuid() == 0 && bpfWorks(t)]; l.Datapath != want {
				t.Errorf("datapath %q (%q), want %s", l.Datapath, l.Reason, want)
			}
			if l.Reason == "" {
				t.Error("no reason why it isn't a better datapath")
			}
			i.flow(b, l.Datapath, p.LocalAddr().String())
			i.series(b)
			i.programs(l.Datapath == "splice")
			i.lint()
			i.answers()
			p.Close()
			i.lines(1)
		})
	}
}

func (i *instance) flow(backend, datapath, client string) {
	i.t.Helper()
	var flows []struct {
		Listener, Pool, Backend, Client, Datapath string
		Reason                                    *string
		Received                                  uint64  `json:"bytes_received"`
		Sent                                      uint64  `json:"bytes_sent"`
		Age                                       float64 `json:"age_seconds"`
		Idle                                      float64 `json:"idle_seconds"`
	}
	_, body := i.get("/flows?limit=10")
	if err := json.Unmarshal([]byte(body), &flows); err != nil || len(flows) != 1 {
		i.t.Fatalf("/flows: %v: %s", err, body)
	}
	f := flows[0]
	if f.Listener != "l" || f.Pool != "l" || f.Backend != backend || f.Client != client || f.Datapath != datapath ||
		f.Received != 800 || f.Sent != 800 || f.Age <= 0 || f.Idle < 0 ||
		f.Reason == nil || *f.Reason == "" { // between sockets of one host splice is the best, and that is the reason
		i.t.Errorf("flow: %s", body)
	}
}

// series: what is configured has its series from the start.
func (i *instance) series(backend string) {
	i.t.Helper()
	of := fmt.Sprintf(`{backend=%q,pool="l"}`, backend)
	for name, want := range map[string]float64{
		`sluice_sessions_active{listener="l"}`:                                                   1,
		`sluice_session_bytes_total{direction="received",listener="l"}`:                          800,
		`sluice_session_bytes_total{direction="sent",listener="l"}`:                              800,
		`sluice_backend_sessions_total` + of:                                                     1,
		`sluice_backend_sessions_active` + of:                                                    1,
		`sluice_backend_up` + of:                                                                 1,
		fmt.Sprintf(`sluice_backend_bytes_total{backend=%q,direction="sent",pool="l"}`, backend): 800,
		`sluice_config_reload_success`:                                                           1,
	} {
		if got := i.metric(name); got != want {
			i.t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	_, body := i.get("/metrics")
	for _, zero := range []string{"sluice_backend_failures_total" + of, `sluice_config_reloads_total{result="ok"}`, `sluice_config_reloads_total{result="refused"}`,
		"sluice_access_log_lines_total", "sluice_access_log_dropped_lines_total"} {
		if !strings.Contains(body, "\n"+zero+" 0\n") {
			i.t.Errorf("no series %s with 0", zero)
		}
	}
}

// programs: what the programs in the kernel did is counted, from the start,
// where they are loaded.
func (i *instance) programs(loaded bool) {
	i.t.Helper()
	_, body := i.get("/metrics")
	for _, name := range []string{`sluice_dispatch_total{outcome="picked"} 1`, `sluice_dispatch_total{outcome="not_stored"} 0`,
		`sluice_splice_total{outcome="redirected"} `, `sluice_splice_total{outcome="order_lost"} 0`} {
		if strings.Contains(body, "\n"+name) != loaded {
			i.t.Errorf("%s: there %v, want %v", name, !loaded, loaded)
		}
	}
	if loaded && strings.Contains(body, "\nsluice_splice_total{outcome=\"redirected\"} 0\n") {
		i.t.Error("a spliced session has redirected nothing")
	}
	if d := i.doc(); d.Listeners[0].Fallbacks == nil || len(d.Listeners[0].Fallbacks) != 0 {
		i.t.Errorf("fallbacks %v, want an object, and none", d.Listeners[0].Fallbacks)
	}
}

// lint judges /metrics by the rules of promtool check metrics, and by promtool
// itself where it is installed.
func (i *instance) lint() {
	i.t.Helper()
	_, body := i.get("/metrics")
	problems, err := promlint.New(strings.NewReader(body)).Lint()
	if err != nil {
		i.t.Fatal(err)
	}
	for _, p := range problems {
		i.t.Errorf("%s: %s", p.Metric, p.Text)
	}
	if path, err := exec.LookPath("promtool"); err == nil {
		cmd := exec.Command(path, "check", "metrics")
		cmd.Stdin = bytes.NewBufferString(body)
		if out, err := cmd.CombinedOutput(); err != nil {
			i.t.Errorf("promtool: %v: %s", err, out)
		}
	}
}

// answers: reads only, and only what there is.
func (i *instance) answers() {
	i.t.Helper()
	for _, c := range []struct {
		method, path string
		code         int
	}{
		{"GET", "/healthz", 200}, {"HEAD", "/stats", 200}, {"HEAD", "/metrics", 200}, {"GET", "/flows", 200},
		{"POST", "/stats", 405}, {"DELETE", "/flows", 405}, {"PUT", "/healthz", 405}, {"GET", "/nothing", 404},
	} {
		r, err := http.NewRequest(c.method, "http://"+i.stats+c.path, nil)
		if err != nil {
			i.t.Fatal(err)
		}
		r.Close = true
		a, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			i.t.Fatal(err)
		}
		a.Body.Close()
		if a.StatusCode != c.code {
			i.t.Errorf("%s %s: %d, want %d", c.method, c.path, a.StatusCode, c.code)
		}
	}
}
