// SPDX-License-Identifier: Apache-2.0

package contender

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sluice/bench/lab"
)

// updateLimit is how long a change of the backends may take.
const updateLimit = 10 * time.Second

func nginx() (*Contender, error) {
	path, err := FindProgram("nginx")
	if err != nil {
		return nil, err
	}
	c := &Contender{Name: "nginx", Program: path, template: "nginx.conf.tmpl", config: "nginx.conf", update: reloadNginx,
		args: func(config string) []string { return []string{"-c", config, "-p", filepath.Dir(config)} }}
	if c.module = StreamModule(); c.module != "" {
		return c, nil
	}
	built, err := exec.Command(path, "-V").CombinedOutput()
	if err != nil || !strings.Contains(string(built), "--with-stream ") {
		return nil, errors.New("nginx has no stream module; on Debian, libnginx-mod-stream has it")
	}
	return c, nil
}

// StreamModule is the path of nginx's stream module; empty if there is none.
func StreamModule() string {
	modules, _ := filepath.Glob("/usr/lib*/nginx/modules/ngx_stream_module.so")
	if len(modules) == 0 {
		return ""
	}
	return modules[0]
}

// reloadNginx is what `nginx -s reload` does. It is done once a new worker runs.
func reloadNginx(in *Instance, ctx context.Context, backends []netip.Addr) error {
	if err := in.write(backends); err != nil {
		return err
	}
	before := lab.Tree(in.proc.Pid())
	if err := in.proc.Signal(unix.SIGHUP); err != nil {
		return err
	}
	return wait(ctx, "nginx: no new worker after a reload", func() (bool, error) {
		for _, pid := range lab.Tree(in.proc.Pid()) {
			if !slices.Contains(before, pid) {
				return true, nil
			}
		}
		return false, nil
	})
}

func wait(ctx context.Context, what string, done func() (bool, error)) error {
	for deadline := time.Now().Add(updateLimit); time.Now().Before(deadline); {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	return fmt.Errorf("%s within %s", what, updateLimit)
}

func haproxy() (*Contender, error) {
	path, err := FindProgram("haproxy")
	if err != nil {
		return nil, err
	}
	return &Contender{Name: "haproxy", Program: path, template: "haproxy.cfg.tmpl", config: "haproxy.cfg", update: setServers,
		args: func(config string) []string { return []string{"-db", "-f", config} }}, nil
}

// setServers takes servers that are not in use out, over the runtime API, and the others in.
func setServers(in *Instance, _ context.Context, backends []netip.Addr) error {
	var commands []string
	for i, addr := range in.Backends {
		state := "maint"
		if slices.Contains(backends, addr) {
			state = "ready"
		}
		// Only what may have changed: the updates of this bench touch the last backend alone.
		if i == len(in.Backends)-1 {
			commands = append(commands, fmt.Sprintf("set server echo/s%d state %s", i, state))
		}
	}
	conn, err := net.Dial("unix", filepath.Join(in.Dir, "haproxy.sock"))
	if err != nil {
		return fmt.Errorf("haproxy: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(updateLimit)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(conn, strings.Join(commands, ";")); err != nil {
		return fmt.Errorf("haproxy: %w", err)
	}
	answer, err := io.ReadAll(conn)
	if text := strings.TrimSpace(string(answer)); err == nil && text != "" {
		err = errors.New(text)
	}
	if err != nil {
		return fmt.Errorf("haproxy: set server: %w", err)
	}
	return nil
}
