// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	rpc "google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// rpcVar has this binary be a gRPC server at an address, which can be killed.
const rpcVar = "SLUICE_E2E_RPC"

// becomeRPCServer serves grpc.health.v1; each answer says who gave it.
func becomeRPCServer(addr string) error {
	l, err := net.Listen("tcp4", addr)
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	s := rpc.NewServer(rpc.UnaryInterceptor(func(ctx context.Context, req any, _ *rpc.UnaryServerInfo, h rpc.UnaryHandler) (any, error) {
		if err := rpc.SetHeader(ctx, metadata.Pairs("who", l.Addr().String())); err != nil {
			return nil, err
		}
		return h(ctx, req)
	}))
	healthpb.RegisterHealthServer(s, health.NewServer())
	return s.Serve(l)
}

// rpcProcess is such a server.
type rpcProcess struct {
	addr string
	cmd  *exec.Cmd
}

func rpcServer(t *testing.T, addr string) *rpcProcess {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), rpcVar+"="+addr)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &rpcProcess{cmd: cmd}
	t.Cleanup(p.kill)
	if _, err := fmt.Fscanln(out, &p.addr); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *rpcProcess) kill() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

// rpcCaller is a client with one connection.
type rpcCaller struct{ healthpb.HealthClient }

func caller(t *testing.T, addr string) rpcCaller {
	t.Helper()
	c, err := rpc.NewClient("passthrough:///"+addr, rpc.WithTransportCredentials(insecure.NewCredentials()), rpc.WithDisableServiceConfig())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return rpcCaller{healthpb.NewHealthClient(c)}
}

// call says who has answered.
func (c rpcCaller) call(limit time.Duration) (who string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var header metadata.MD
	_, err = c.Check(ctx, &healthpb.HealthCheckRequest{}, rpc.Header(&header))
	if v := header.Get("who"); len(v) > 0 {
		who = v[0]
	}
	return who, err
}

// TestGRPC: calls of one connection over three processes, in the log, the
// statistics and the metrics; REST on the same port.
func TestGRPC(t *testing.T) {
	t.Parallel()
	for _, u := range users() {
		t.Run(u.name, func(t *testing.T) {
			addr := front(t)
			a, b, d := rpcServer(t, "127.0.0.1:0"), rpcServer(t, "127.0.0.1:0"), rpcServer(t, "127.0.0.1:0")
			i := startWith(t, u, fmt.Sprintf("pools: {p: {backends: [%q, %q, %q]}}\nlisteners: [{name: g, listen: %q, protocol: grpc, pool: p}]\n", a.addr, b.addr, d.addr, addr),
				func(i *instance) { i.format = "json" })
			c := caller(t, addr)
			for n := range 60 {
				who, err := c.call(patience)
				if err != nil {
					t.Fatal(err)
				}
				if want := []string{a.addr, b.addr, d.addr}[n%3]; who != want {
					t.Fatalf("call %d went to %s, want %s", n, who, want)
				}
			}
			var line struct {
				Protocol, Datapath string
				Status             int
				Method             string `json:"grpc_method"`
				Code               *int   `json:"grpc_status"`
				Upstream           string `json:"upstream_addr"`
			}
			if err := json.Unmarshal([]byte(i.lines(60)[1]), &line); err != nil {
				t.Fatal(err)
			}
			if line.Protocol != "GRPC" || line.Datapath != "grpc" || line.Status != 200 || line.Method != "/grpc.health.v1.Health/Check" ||
				line.Code == nil || *line.Code != 0 || line.Upstream != b.addr {
				t.Errorf("%+v", line)
			}
			if l := i.doc().Listeners[0]; l.Protocol != "grpc" || l.Datapath != "grpc" || l.Total != 60 || l.Active != 0 {
				t.Errorf("%+v", l)
			}
			_, text := i.get("/metrics")
			for _, want := range []string{
				`sluice_grpc_calls_total{code="0",listener="g"} 60`, `sluice_grpc_call_seconds_count{listener="g"} 60`,
				`sluice_grpc_connections{listener="g",side="client"} 1`, `sluice_grpc_connections{listener="g",side="backend"} 3`,
				`sluice_sessions_total{datapath="grpc",listener="g",status="200"} 60`,
				fmt.Sprintf(`sluice_backend_sessions_total{backend=%q,pool="p"} 20`, d.addr),
			} {
				if !strings.Contains(text, want+"\n") {
					t.Errorf("no %s", want)
				}
			}
			i.lint()

			// A server of HTTP/1 behind the same port.
			web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "rest") })}
			l, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			go web.Serve(l)
			t.Cleanup(func() { web.Close() })
			i.write(fmt.Sprintf("pools: {p: {backends: [%q]}}\nlisteners: [{name: g, listen: %q, protocol: grpc, pool: p}]\n", l.Addr(), addr))
			i.loaded("p", l.Addr().String())
			got, err := (&http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + addr + "/v2/vectordb")
			if err != nil {
				t.Fatal(err)
			}
			got.Body.Close()
			if got.StatusCode != 200 {
				t.Errorf("status %d", got.StatusCode)
			}
		})
	}
}

// TestGRPCFailures: a process that is killed among many clients, one that is
// stopped, and their return.
func TestGRPCFailures(t *testing.T) {
	t.Parallel()
	addr := front(t)
	a, b := rpcServer(t, "127.0.0.1:0"), rpcServer(t, "127.0.0.1:0")
	body := fmt.Sprintf("pools: {p: {backends: [{address: %q, fail_timeout: 1s}, {address: %q, fail_timeout: 1s}]}}\nlisteners: [{name: g, listen: %q, protocol: grpc, pool: p}]\n", a.addr, b.addr, addr)
	i := startWith(t, user{}, body, func(i *instance) { i.format = "$grpc_status $end_reason $upstream_addr" })
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var calls, failed atomic.Int64
	var other sync.Map
	limit := atomic.Int64{}
	limit.Store(int64(patience))
	for range 30 {
		c := caller(t, addr)
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				select {
				case <-stop:
					return
				default:
				}
				_, err := c.call(time.Duration(limit.Load()))
				calls.Add(1)
				switch {
				case err == nil:
				case status.Code(err) == codes.Unavailable && strings.HasPrefix(status.Convert(err).Message(), "sluice: "+a.addr):
					failed.Add(1)
				case status.Code(err) == codes.DeadlineExceeded:
				default:
					other.Store(err.Error(), true)
				}
			}
		}()
	}
	more := func(n int64) {
		t.Helper()
		until := calls.Load() + n
		eventually(t, func() string {
			if at := calls.Load(); at < until {
				return fmt.Sprintf("%d calls, want %d", at, until)
			}
			return ""
		})
	}
	more(500)
	a.kill()
	more(500)
	if n := failed.Load(); n > 30 {
		t.Errorf("%d calls failed, more than were under way", n)
	}
	before := failed.Load()
	more(500)
	if n := failed.Load() - before; n > 0 {
		t.Errorf("%d calls failed later", n)
	}
	back := rpcServer(t, a.addr)
	served := func(want string) {
		t.Helper()
		c := caller(t, addr)
		eventually(t, func() string {
			if who, err := c.call(patience); err != nil || who != want {
				return fmt.Sprintf("%s answers, %v", who, err)
			}
			return ""
		})
	}
	served(back.addr)
	if n := failed.Load() - before; n > 0 {
		t.Errorf("%d calls failed at its return", n)
	}

	// One that hangs: calls with a deadline keep it, and the others go on.
	limit.Store(int64(200 * time.Millisecond))
	if err := b.cmd.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	more(200)
	if err := b.cmd.Process.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	limit.Store(int64(patience))
	served(b.addr)
	close(stop)
	wg.Wait()
	other.Range(func(text, _ any) bool { t.Errorf("a call ended otherwise: %s", text); return true })
	late := 0
	for _, line := range i.lines(int(calls.Load())) {
		if strings.HasPrefix(line, "- deadline "+b.addr) {
			late++
		}
	}
	if late == 0 {
		t.Error("no line of a call whose time was over")
	}
	i.signal(unix.SIGTERM)
	if code := i.exitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
