// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"sluice/bench/contender"
	"sluice/bench/lab"
	"sluice/bench/peers"
	"sluice/bench/result"
)

// The field's own load tools, as a check of the harness's generator: what they
// measure through the same contenders should rank them alike.

// tool is a load tool: its server runs on the backends' host, its client on the client's.
type tool struct {
	program string
	port    int
	server  func(dir string, workers int) (args []string, err error) // of serverProgram
	// serverProgram is the program that serves; empty: the tool itself
	serverProgram string
}

func tools() []tool {
	return []tool{
		{program: "iperf3", port: 5201, server: func(string, int) ([]string, error) { return []string{"-s", "-4", "-p", "5201"}, nil }},
		{program: "sockperf", port: 11111, server: func(string, int) ([]string, error) {
			return []string{"server", "--tcp", "-i", "0.0.0.0", "-p", "11111"}, nil
		}},
		{program: "wrk", port: 8080, serverProgram: "nginx", server: func(dir string, workers int) ([]string, error) {
			path := filepath.Join(dir, "web.conf")
			return []string{"-c", path, "-p", dir}, peers.Write("web.conf.tmpl", path, peers.Values{Dir: dir, Workers: workers})
		}},
	}
}

// toolServices are further ports that the contenders balance on a bed with tools.
func toolServices() []peers.Service {
	var list []peers.Service
	for _, t := range tools() {
		list = append(list, peers.Service{Name: t.program, Port: t.port, Stream: t.program == "iperf3"})
	}
	return list
}

// startTools starts the servers and waits until all of them listen.
func (b *Bed) startTools(ctx context.Context) error {
	dir := filepath.Join(b.dir, "tools")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, t := range tools() {
		name := t.program
		if t.serverProgram != "" {
			name = t.serverProgram
		}
		path, err := contender.FindProgram(name)
		if err != nil {
			return err
		}
		args, err := t.server(dir, b.threads())
		if err != nil {
			return err
		}
		proc, err := b.lab.Backend.Start(exec.Command(path, args...), b.cores())
		if err != nil {
			return err
		}
		if err := b.lab.Backend.WaitListening(ctx, t.port, proc); err != nil {
			return fmt.Errorf("the server of %s: %w", t.program, err)
		}
	}
	return nil
}

// toolClient runs a tool's client against a contender and returns what it printed.
func (e *Entry) toolClient(ctx context.Context, program string, limit time.Duration, args ...string) ([]byte, error) {
	path, err := contender.FindProgram(program)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	proc, err := e.bed.lab.Client.Start(cmd, e.bed.cores())
	if err != nil {
		return nil, err
	}
	select {
	case <-proc.Done():
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), proc.Stop())
	}
	if err := errors.Join(proc.Err(), e.Alive()); err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(out.String()))
	}
	return out.Bytes(), nil
}

// toolLimit is how long a tool may take beyond its window.
const toolLimit = 15 * time.Second

func (e *Entry) target(port int) netip.AddrPort { return e.Targets(port)[0] }

// iperf3 moves bulk over so many streams. Both its client and its server have one
// thread each (before 3.16), which copies what arrives.
func iperf3(streams int, up bool) func(context.Context, *Entry, time.Duration) (result.Sample, error) {
	return func(ctx context.Context, e *Entry, d time.Duration) (result.Sample, error) {
		to := e.target(5201)
		args := []string{"-c", to.Addr().String(), "-p", strconv.Itoa(int(to.Port())), "-B", lab.SourceAddrs(1)[0].String(),
			"-P", strconv.Itoa(streams), "-J", "-O", "0", "-t", strconv.Itoa(max(1, int(d.Seconds())))}
		if !up {
			args = append(args, "-R")
		}
		out, err := e.toolClient(ctx, "iperf3", d+toolLimit, args...)
		if err != nil {
			return result.Sample{}, err
		}
		return iperf3Sample(out)
	}
}

// iperf3Sample reads what arrived at whichever end received, in the client's report.
func iperf3Sample(out []byte) (result.Sample, error) {
	var res struct {
		End struct {
			Received struct {
				Bits float64 `json:"bits_per_second"`
			} `json:"sum_received"`
			CPU struct {
				Host   float64 `json:"host_total"`
				Remote float64 `json:"remote_total"`
			} `json:"cpu_utilization_percent"`
		}
	}
	if err := json.Unmarshal(out, &res); err != nil || res.End.Received.Bits == 0 {
		return result.Sample{}, fmt.Errorf("iperf3: no result (%v) in: %.300s", err, out)
	}
	s := result.Sample{Values: map[string]float64{"gbits": res.End.Received.Bits / 1e9}}
	if res.End.CPU.Host > 100*bound {
		s.Marks = append(s.Marks, "client-bound")
	}
	if res.End.CPU.Remote > 100*bound {
		s.Marks = append(s.Marks, "server-bound")
	}
	return s, nil
}

// sockperf is a ping-pong of 64 bytes; it prints half of the round trip.
func sockperf(ctx context.Context, e *Entry, d time.Duration) (result.Sample, error) {
	to := e.target(11111)
	out, err := e.toolClient(ctx, "sockperf", d+toolLimit, "ping-pong", "--tcp", "-i", to.Addr().String(), "-p", strconv.Itoa(int(to.Port())),
		"--client_ip", lab.SourceAddrs(1)[0].String(), "-m", strconv.Itoa(messageSize), "-t", strconv.Itoa(max(1, int(d.Seconds()))))
	if err != nil {
		return result.Sample{}, err
	}
	values := map[string]float64{}
	for key, name := range map[string]string{"50.000": "p50", "99.000": "p99", "99.900": "p999"} {
		v, err := find(out, `percentile `+regexp.QuoteMeta(key)+` =\s*([0-9.]+)`)
		if err != nil {
			return result.Sample{}, fmt.Errorf("sockperf: %w", err)
		}
		values[name] = 2 * v
	}
	return result.Sample{Values: values}, nil
}

// wrk asks a web server behind the contender for two bytes, over and over.
func wrk(closing bool) func(context.Context, *Entry, time.Duration) (result.Sample, error) {
	return func(ctx context.Context, e *Entry, d time.Duration) (result.Sample, error) {
		conns, path := "64", "/"
		if closing {
			conns, path = strconv.Itoa(atOnce), "/close"
		}
		before, err := e.bed.ports()
		if err != nil {
			return result.Sample{}, err
		}
		out, err := e.toolClient(ctx, "wrk", d+toolLimit, "-t", strconv.Itoa(e.bed.threads()), "-c", conns,
			"-d", fmt.Sprintf("%ds", max(1, int(d.Seconds()))), "--latency", "http://"+e.target(8080).String()+path)
		if err != nil {
			return result.Sample{}, err
		}
		if bad := grep(out, "Socket errors"); bad != "" {
			return result.Sample{}, fmt.Errorf("wrk: %s", bad)
		}
		after, err := e.bed.ports()
		if err != nil {
			return result.Sample{}, err
		}
		if after.untracked > before.untracked || after.listener > before.listener {
			return result.Sample{}, errors.New("wrk: connections were refused for want of room")
		}
		rate, err := find(out, `Requests/sec:\s*([0-9.]+)`)
		if err != nil {
			return result.Sample{}, fmt.Errorf("wrk: %w", err)
		}
		return result.Sample{Values: map[string]float64{"rps": rate}}, nil
	}
}

// find is the number in the first match.
func find(text []byte, pattern string) (float64, error) {
	m := regexp.MustCompile(pattern).FindSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("no %q in what it printed: %.300s", pattern, text)
	}
	return strconv.ParseFloat(string(m[1]), 64)
}

func grep(text []byte, word string) string {
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if strings.Contains(lines.Text(), word) {
			return strings.TrimSpace(lines.Text())
		}
	}
	return ""
}
