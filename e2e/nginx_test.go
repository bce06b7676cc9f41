// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The format of the seed, as nginx's configuration has it.
const nginxFormat = `'$remote_addr [$time_local] $protocol $status $bytes_sent $bytes_received $session_time ` +
	`"$upstream_addr" "$upstream_bytes_sent" "$upstream_bytes_received" "$upstream_connect_time"'`

// nginx runs Debian's nginx with one worker and these blocks inside stream{},
// and returns its access log. It is stopped at the test's end.
func nginx(t testing.TB, blocks string, fronts []string) string {
	t.Helper()
	return nginxWith(t, nginxFormat, blocks, fronts)
}

// nginxWith is nginx with another format, quoted as its configuration has it.
func nginxWith(t testing.TB, format, blocks string, fronts []string) string {
	t.Helper()
	conf, access := nginxConf(t, format, blocks)
	nginxOn(t, conf, fronts)
	return access
}

// nginxConf writes a whole nginx.conf with these blocks inside stream{}, and
// returns its path and its access log's.
func nginxConf(t testing.TB, format, blocks string) (conf, access string) {
	t.Helper()
	dir := tempDir(t, user{})
	access, conf = filepath.Join(dir, "access.log"), filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(`load_module %s;
daemon off;
master_process off;
worker_processes 1;
pid %s/nginx.pid;
error_log %s/error.log info;
events { worker_connections 1024; }
stream {
	log_format proxy %s;
	access_log %s proxy;
	limit_conn_zone $binary_remote_addr zone=clients:64k;
%s}
`, streamModule(t), dir, dir, format, access, blocks)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return conf, access
}

// nginxOn runs nginx with this nginx.conf until the test's end.
func nginxOn(t testing.TB, conf string, fronts []string) {
	t.Helper()
	dir := filepath.Dir(conf)
	path, err := exec.LookPath("nginx")
	if err != nil {
		path = "/usr/sbin/nginx"
	}
	said := &output{}
	cmd := exec.Command(path, "-p", dir, "-e", filepath.Join(dir, "error.log"), "-c", conf)
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatalf("nginx (scripts/deps test installs it): %v", err)
	}
	exited := make(chan struct{})
	go func() { cmd.Wait(); close(exited) }()
	t.Cleanup(func() {
		cmd.Process.Signal(unix.SIGTERM)
		select {
		case <-exited:
		case <-time.After(patience):
			cmd.Process.Kill()
			<-exited
		}
		if t.Failed() {
			b, _ := os.ReadFile(filepath.Join(dir, "error.log"))
			t.Logf("nginx said:\n%s%s", said, b)
		}
	})
	for _, f := range fronts {
		awaitListener(t, exited, f)
	}
}

// awaitListener waits until nginx listens on addr, without connecting to it: a
// connection would be a line in its log.
func awaitListener(t testing.TB, exited <-chan struct{}, addr string) {
	t.Helper()
	eventually(t, func() string {
		select {
		case <-exited:
			t.Fatal("nginx ended at once")
		default:
		}
		if path, ok := strings.CutPrefix(addr, "unix:"); ok {
			if _, err := os.Stat(path); err != nil {
				return err.Error()
			}
			return ""
		}
		l, err := net.Listen("tcp", addr)
		if err == nil {
			l.Close()
			return "nobody listens on " + addr
		}
		return ""
	})
}

// streamModule is where Debian puts what makes its nginx balance connections.
func streamModule(t testing.TB) string {
	t.Helper()
	const path = "/usr/lib/nginx/modules/ngx_stream_module.so"
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("nginx's stream module (scripts/deps test installs it): %v", err)
	}
	return path
}
