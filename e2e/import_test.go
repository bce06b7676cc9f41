// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// imported runs `sluice import` on a file, and then sluice with what comes out,
// which `sluice check` has to pass. It returns what import said on stderr.
func imported(t *testing.T, source string) (i *instance, notes string) {
	t.Helper()
	yaml, notes, code := command(t, user{}, "import", source)
	if code != 0 {
		t.Fatalf("import: exit code %d\n%s", code, notes)
	}
	i = prepare(t, user{}, "")
	i.writeRaw(yaml)
	if _, stderr, code := command(t, user{}, "check", "-c", i.conf); code != 0 {
		t.Fatalf("check refuses what import wrote: %s\n%s", stderr, yaml)
	}
	i.launch(user{})
	i.awaitReady()
	return i, notes
}

// onlyAbout fails if a note is about anything but these words.
func onlyAbout(t *testing.T, source, notes string, words ...string) {
	t.Helper()
	for line := range strings.Lines(notes) {
		_, what, ok := strings.Cut(strings.TrimPrefix(line, source+":"), ": ")
		if word := strings.FieldsFunc(what, func(r rune) bool { return r == ' ' || r == ':' }); !ok || !slices.Contains(words, word[0]) {
			t.Errorf("a note that nobody expects: %s", line)
		}
	}
}

// TestImportedNginx plays all samples to Debian's nginx, and then to a sluice
// whose file `sluice import` made of the very nginx.conf: at the same
// addresses, with the same lines in the same log.
func TestImportedNginx(t *testing.T) {
	samples := allSamples(t)
	var blocks strings.Builder
	var dialers []dialer
	var fronts []string
	for i := range samples {
		s := &samples[i]
		s.upstream = "up_" + strings.ReplaceAll(s.name, " ", "_")
		d := s.dialer(t, user{})
		dialers = append(dialers, d)
		fronts = append(fronts, s.listen(d))
		blocks.WriteString(s.nginxBlock(d))
	}
	conf, access := nginxConf(t, nginxFormat, blocks.String())
	play := func(t *testing.T, s sample, d dialer) (saw string, lines []string) {
		before := len(readLines(t, access))
		saw = s.act(t, d)
		return saw, awaitLines(t, access, before+s.lines)[before:]
	}
	saw, theirs := make([]string, len(samples)), make([][]string, len(samples))
	t.Run("nginx", func(t *testing.T) {
		nginxOn(t, conf, fronts)
		for k, s := range samples {
			saw[k], theirs[k] = play(t, s, dialers[k])
		}
	})
	if err := os.Remove(access); err != nil {
		t.Fatal(err)
	}
	i, notes := imported(t, conf)
	i.access = access
	onlyAbout(t, conf, notes, "pid", "error_log", "worker_connections", "set_real_ip_from", "proxy_protocol")
	for k, s := range samples {
		t.Run(s.name, func(t *testing.T) {
			got, ours := play(t, s, dialers[k])
			sameLines(t, theirs[k], ours, s.least)
			if got != saw[k] {
				t.Errorf("nginx's client saw %q, sluice's %q", saw[k], got)
			}
		})
	}
}

// haproxy runs HAProxy with this haproxy.cfg until the test's end.
func haproxy(t *testing.T, conf string, fronts []string) {
	t.Helper()
	path, err := exec.LookPath("haproxy")
	if err != nil {
		path = "/usr/sbin/haproxy"
	}
	said := &output{}
	cmd := exec.Command(path, "-db", "-f", conf)
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatalf("haproxy (scripts/deps test installs it): %v", err)
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
			t.Logf("haproxy said:\n%s", said)
		}
	})
	for _, f := range fronts {
		awaitListener(t, exited, f)
	}
}

// TestImportedHAProxy: sluice with what import makes of a haproxy.cfg sends the
// same clients, in the same order, to the same backends as HAProxy does.
func TestImportedHAProxy(t *testing.T) {
	letters := named(t, 3)
	header := tcp(t, func(c net.Conn) {
		b := make([]byte, 6)
		io.ReadFull(c, b)
		c.Write([]byte{b[0]})
		io.Copy(io.Discard, c)
	})
	front := func() string { return fmt.Sprintf("127.0.0.1:%d", freePort(t)) }
	turn, one, dead, down, least, proxy, v6 := front(), front(), front(), front(), front(), front(), fmt.Sprintf("[::1]:%d", freePort(t))
	text := fmt.Sprintf(`global
	nbthread 1
defaults
	mode tcp
	timeout connect 5s
	timeout client 30s
	timeout server 30s
listen turn
	bind %s
	bind %s
	balance roundrobin
	server a %s weight 10
	server b %s weight 10
	server c %s weight 10
frontend one
	bind %s
	default_backend only
backend only
	server b %s
listen dead
	bind %s
	option redispatch
	server dead %s
	server c %s
listen down
	bind %s
	default-server disabled
	server a %s
	server b %s enabled
	server c %s
listen least
	bind %s
	balance leastconn
	server a %s
	server b %s
	server c %s
listen proxy
	bind %s
	server h %s send-proxy
`, turn, v6, letters[0].addr, letters[1].addr, letters[2].addr, one, letters[1].addr, dead, refusing(t), letters[2].addr,
		down, letters[0].addr, letters[1].addr, letters[2].addr, least, letters[0].addr, letters[1].addr, letters[2].addr, proxy, header.addr)
	conf := filepath.Join(tempDir(t, user{}), "haproxy.cfg")
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	visit := func(t *testing.T) (seen string) {
		once := func(addr string) {
			if addr == proxy {
				c, err := net.DialTimeout("tcp", addr, patience)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(patience))
				b := make([]byte, 1)
				if _, err := io.ReadFull(c, b); err != nil {
					t.Fatal(err)
				}
				seen += string(b)
				return
			}
			l, err := letter(addr)
			if err != nil {
				t.Fatalf("%s: %v", addr, err)
			}
			seen += string(l)
		}
		for _, addr := range []string{turn, turn, v6, turn, v6, turn, turn, one, one, down, down, dead, dead, dead, proxy} {
			once(addr)
		}
		// Open sessions weigh: each next one goes where none is.
		for range 3 {
			c, err := net.DialTimeout("tcp", least, patience)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience))
			b := make([]byte, 1)
			if _, err := io.ReadFull(c, b); err != nil {
				t.Fatal(err)
			}
			seen += string(b)
		}
		return seen
	}
	var theirs string
	t.Run("haproxy", func(t *testing.T) {
		haproxy(t, conf, []string{turn, v6, one, dead, down, least, proxy})
		theirs = visit(t)
	})
	_, notes := imported(t, conf)
	onlyAbout(t, conf, notes)
	if ours := visit(t); ours != theirs || !strings.HasPrefix(theirs, "abcabcabb") {
		t.Errorf("HAProxy's clients saw %q, sluice's %q", theirs, ours)
	}
}
