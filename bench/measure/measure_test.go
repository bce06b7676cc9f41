// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/bench/contender"
	"sluice/bench/lab"
	"sluice/bench/load"
	"sluice/bench/result"
	"sluice/config"
)

// TestMain lets the test's own program be the load processes that the harness starts.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && strings.HasPrefix(os.Args[1], "load-") {
		if err := loadProcess(os.Args[1], os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func loadProcess(role, arg string) error {
	if role == "load-backend" {
		threads, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		return load.ServeBackend(threads, os.Stdin, os.Stdout)
	}
	var spec load.Spec
	if err := json.Unmarshal([]byte(arg), &spec); err != nil {
		return err
	}
	return load.RunClient(spec, os.Stdin, os.Stdout)
}

func bed(t *testing.T, kind BedKind) *Bed {
	t.Helper()
	return bedOf(t, kind, contender.Direct)
}

func bedOf(t *testing.T, kind BedKind, names ...string) *Bed {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	list, err := contender.Find(t.Context(), names, "", "", "")
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewBed(t.Context(), kind, list, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		left, err := filepath.Glob(fmt.Sprintf("/run/netns/sl-bench-%d-*", os.Getpid()))
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	})
	return b
}

func TestWorkloadsOverTheDirectWay(t *testing.T) {
	b := bed(t, BedKind{Backends: 300})
	for _, name := range []string{"pingpong", "rps64", "connrate", "session20", "bulk1", "bulk4", "bulk4up", "cpu5000", "stalled"} {
		list, err := Select([]string{name})
		if err != nil {
			t.Fatal(err)
		}
		w := list[0]
		s, err := w.run(t.Context(), b.Entries[0], 300*time.Millisecond)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, ok := s.Values[w.Metric]; !ok {
			t.Errorf("%s: no %s among %v", name, w.Metric, s.Values)
		}
		if v := s.Values[w.Metric]; v <= 0 && name != "cpu5000" {
			t.Errorf("%s: %s is %g", name, w.Metric, v)
		}
	}
}

// What iperf3's client reports is the rate at whichever end received.
func TestIperf3Sample(t *testing.T) {
	report := `{"end":{"sum_sent":{"bits_per_second":3e9},"sum_received":{"bits_per_second":2e9},"cpu_utilization_percent":{"host_total":%d,"remote_total":%d}}}`
	for _, c := range []struct {
		host, remote int
		mark         string
	}{{50, 60, ""}, {99, 60, "client-bound"}, {50, 99, "server-bound"}} {
		s, err := iperf3Sample(fmt.Appendf(nil, report, c.host, c.remote))
		if err != nil || s.Values["gbits"] != 2 || strings.Join(s.Marks, ",") != c.mark {
			t.Errorf("%+v: %+v, %v", c, s, err)
		}
	}
	for _, bad := range []string{"", "{}", `{"error":"unable to connect"}`} {
		if s, err := iperf3Sample([]byte(bad)); err == nil {
			t.Errorf("%q gave %+v", bad, s)
		}
	}
}

// A contender that is rules in the kernel spreads connections over the
// backends, and takes one out and in under load without losing any.
func TestWorkloadsOverTheKernelsNAT(t *testing.T) {
	b := bedOf(t, BedKind{Backends: 3}, contender.Direct, "nft")
	for _, name := range []string{"rps64", "connrate", "bulk1", "memory", "update"} {
		list, err := Select([]string{name})
		if err != nil {
			t.Fatal(err)
		}
		s, err := list[0].run(t.Context(), b.Entries[1], 300*time.Millisecond)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if v := s.Values[list[0].Metric]; v <= 0 && name != "memory" {
			t.Errorf("%s: %s is %g", name, list[0].Metric, v)
		}
		if name == "update" && (s.Values["lost"] != 0 || s.Values["apply"] <= 0) {
			t.Errorf("update: %v", s.Values)
		}
	}
}

// With few ports and all of them in TIME_WAIT there is nothing to measure.
func TestConnectionsFailWhenPortsRunOut(t *testing.T) {
	b := bed(t, BedKind{Backends: 1})
	for key, value := range map[string]string{"ipv4/ip_local_port_range": "60000 60003", "ipv4/tcp_tw_reuse": "0"} {
		if err := b.lab.Client.Sysctl(key, value); err != nil {
			t.Fatal(err)
		}
	}
	s, err := connRate(t.Context(), b.Entries[0], 300*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "ran out of ports") {
		t.Errorf("got %v, %v", s, err)
	}
}

func TestBrokenStreamIsAnError(t *testing.T) {
	b := bed(t, BedKind{Backends: 1})
	e := b.Entries[0]
	e.Backends = nil
	if _, err := keepAlive(4)(t.Context(), e, 100*time.Millisecond); err == nil {
		t.Error("a client without a target measured something")
	}
}

func TestSluiceTemplateIsValid(t *testing.T) {
	path := filepath.Join(t.TempDir(), "backends.yaml")
	if err := contender.Sluice("sluice-relay", "sluice", "relay").WriteConfig(path, 3); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Listeners) != 4 || cfg.Listeners[0].Datapath != "relay" || cfg.AccessLog != nil {
		t.Errorf("read: %+v, log %+v", cfg.Listeners, cfg.AccessLog)
	}
}

type silent struct{}

func (silent) Bed(string)                              {}
func (silent) Sample(*result.Series, string, int, int) {}
func (silent) Series(*result.Series)                   {}

// A workload that wants a congestion control that isn't to be had is left out,
// with a note; a run that was asked for one fails.
func TestCongestionControlThatIsNotThere(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	list, err := Select([]string{"pingpong"})
	if err != nil {
		t.Fatal(err)
	}
	contenders, err := contender.Find(t.Context(), []string{contender.Direct}, "", "", "")
	if err != nil {
		t.Fatal(err)
	}
	plan := Plan{Workloads: list, Contenders: contenders, Rounds: 1, Window: 100 * time.Millisecond, Dir: t.TempDir(), Report: silent{}, Congestion: "none-such"}
	if err := plan.Run(t.Context(), &result.Run{}); !errors.Is(err, lab.ErrCongestion) {
		t.Errorf("asked for a congestion control that doesn't exist: %v", err)
	}
	plan.Congestion, plan.Workloads[0].Bed.Congestion = "", "none-such"
	run := &result.Run{}
	if err := plan.Run(t.Context(), run); err != nil || len(run.Series) > 0 {
		t.Errorf("measured %d series, %v", len(run.Series), err)
	}
	if len(run.Notes) != 1 || !strings.Contains(run.Notes[0], "pingpong was left out") {
		t.Errorf("notes: %q", run.Notes)
	}
}

// Each goal is of a figure that a workload gives: else it would never be measured.
func TestGoalsAreOfWhatIsMeasured(t *testing.T) {
	run := &result.Run{}
	for i, name := range []string{"direct", "nginx", "haproxy", "sluice-nat", "sluice-offload", "sluice-splice", "sluice-relay"} {
		run.Contenders = append(run.Contenders, result.Contender{Name: name})
		for _, w := range All() {
			s := run.Find(w.Name)
			if s == nil {
				series := w.Series
				s = &series
				run.Series = append(run.Series, s)
			}
			values := map[string]float64{w.Metric: float64(i + 1)}
			for _, m := range w.Extra {
				values[m.Name] = float64(i + 1)
			}
			s.Samples = append(s.Samples, result.Sample{Contender: name, Values: values})
		}
	}
	goals := run.Goals()
	for _, g := range goals {
		if g.State() == "not measured" {
			t.Errorf("%s: %s, %s: %s", g.Variant, g.What, g.Promise, g.State())
		}
	}
	if len(goals) == 0 {
		t.Error("no goals")
	}
}

func TestRepeatedWorkloadsNameTheirOriginal(t *testing.T) {
	n := 0
	for _, w := range All() {
		if w.Beside == "" {
			continue
		}
		n++
		list, err := Select([]string{w.Beside})
		if err != nil || list[0].Metric != w.Metric || list[0].Bed.Congestion == w.Bed.Congestion {
			t.Errorf("%s repeats %q: %v", w.Name, w.Beside, err)
		}
	}
	if n == 0 {
		t.Error("no workload is repeated under another congestion control")
	}
}
