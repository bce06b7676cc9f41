// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	rpc "google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
)

// TestImportedGRPC: calls of one connection go to the same backends, in the same
// order, through Debian's nginx with grpc_pass and locations, and through a sluice
// with what import makes of that nginx.conf.
func TestImportedGRPC(t *testing.T) {
	a, b, d := rpcServer(t, "127.0.0.1:0"), rpcServer(t, "127.0.0.1:0"), rpcServer(t, "127.0.0.1:0")
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	dir := tempDir(t, user{})
	conf := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(`daemon off;
master_process off;
worker_processes 1;
pid %[1]s/nginx.pid;
error_log %[1]s/error.log info;
events { worker_connections 1024; }
http {
	access_log off;
	upstream two { server %[2]s; server %[3]s; }
	server {
		listen %[5]s http2;
		location / { grpc_pass grpc://%[4]s; }
		location /grpc.health { grpc_pass grpc://%[4]s; }
		location = /grpc.health.v1.Health/Check { grpc_pass grpc://two; }
	}
}
`, dir, a.addr, b.addr, d.addr, addr)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	calls := func(t *testing.T) string {
		c := caller(t, addr)
		var seen []string
		for n := range 9 {
			if n%3 != 2 {
				who, err := c.call(patience)
				if err != nil {
					t.Fatal(err)
				}
				seen = append(seen, who)
				continue
			}
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			var header metadata.MD
			if _, err := c.List(ctx, &healthpb.HealthListRequest{}, rpc.Header(&header)); err != nil {
				t.Fatal(err)
			}
			seen = append(seen, header.Get("who")...)
		}
		return strings.NewReplacer(a.addr, "a", b.addr, "b", d.addr, "d").Replace(strings.Join(seen, ""))
	}
	var theirs string
	t.Run("nginx", func(t *testing.T) {
		nginxOn(t, conf, []string{addr})
		theirs = calls(t)
	})
	_, notes := imported(t, conf)
	onlyAbout(t, conf, notes, "pid", "error_log", "worker_connections")
	if ours := calls(t); ours != theirs || theirs != "abdabdabd" {
		t.Errorf("nginx's calls went to %q, sluice's to %q", theirs, ours)
	}
}
