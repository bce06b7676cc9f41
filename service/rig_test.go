// SPDX-License-Identifier: Apache-2.0

package service

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"sluice/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// rig is a service on a file in a directory of its own.
type rig struct {
	t       *testing.T
	s       *Service
	dir     string
	file    string
	signals *Signals
	ended   chan error
	reloads chan error
	log     *syncBuffer
	cancel  context.CancelFunc
}

// syncBuffer is the service's log.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// head is what every file of these tests begins with.
func (r *rig) head() string {
	return fmt.Sprintf("access_log: {path: %s/access.log, format: json}\nstats: off\ndrain_timeout: 5s\n", r.dir)
}

func newRig(t *testing.T, content string) *rig { return newRigWith(t, content, Options{}) }

// newRigWith runs a service; content goes behind head.
func newRigWith(t *testing.T, content string, o Options) *rig {
	t.Helper()
	r := &rig{
		t: t, dir: t.TempDir(), signals: NewSignals(), ended: make(chan error, 1),
		reloads: make(chan error, 1000), log: &syncBuffer{},
	}
	r.file = filepath.Join(r.dir, "backends.yaml")
	r.edit(content)
	o.ConfigFile, o.Unprivileged = r.file, true
	o.LogWriter = zerolog.MultiLevelWriter(r.log)
	o.AfterReload = func(err error) { r.reloads <- err }
	r.s = New(o)
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go func() { r.ended <- r.s.Run(ctx, r.signals) }()
	select {
	case <-r.s.Ready():
	case err := <-r.ended:
		t.Fatalf("start: %v", err)
	}
	t.Cleanup(func() {
		cancel()
		r.wait()
	})
	return r
}

// wait waits for the end; it may be called again.
func (r *rig) wait() {
	r.t.Helper()
	select {
	case err := <-r.ended:
		if err != nil {
			r.t.Errorf("Run: %v", err)
		}
		r.ended <- nil
	case <-time.After(10 * time.Second):
		r.t.Fatal("the service doesn't end")
	}
}

// edit renames a new file into place.
func (r *rig) edit(content string) {
	r.t.Helper()
	tmp := r.file + ".new"
	if err := os.WriteFile(tmp, []byte(r.head()+content), 0o600); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(tmp, r.file); err != nil {
		r.t.Fatal(err)
	}
}

// reload edits and waits until the edit has been taken over, or refused.
func (r *rig) reload(content string) error {
	r.t.Helper()
	for len(r.reloads) > 0 {
		<-r.reloads
	}
	r.edit(content)
	return r.reloaded()
}

func (r *rig) reloaded() error {
	r.t.Helper()
	select {
	case err := <-r.reloads:
		return err
	case <-time.After(time.Second):
		r.t.Fatal("the edit wasn't noticed within a second")
		return nil
	}
}

func (r *rig) mustReload(content string) {
	r.t.Helper()
	if err := r.reload(content); err != nil {
		r.t.Fatalf("the edit was refused: %v", err)
	}
}

// lines are the access log's.
func (r *rig) lines() []string {
	b, err := os.ReadFile(filepath.Join(r.dir, "access.log"))
	if err != nil {
		r.t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// backend is a server that begins with its name and then echoes lines.
func backend(t *testing.T, name string) (addr string) {
	t.Helper()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Add(1)
			go func() {
				defer wg.Done()
				defer c.Close()
				fmt.Fprintln(c, name)
				for in := bufio.NewScanner(c); in.Scan(); {
					fmt.Fprintln(c, in.Text())
				}
			}()
		}
	}()
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// session is a client's connection; name is the backend it got.
type peer struct {
	net.Conn
	in   *bufio.Reader
	name string
}

func open(t *testing.T, addr string) *peer {
	t.Helper()
	s, err := tryOpen(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func tryOpen(addr string) (*peer, error) {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(20 * time.Second))
	s := &peer{Conn: c, in: bufio.NewReader(c)}
	line, err := s.in.ReadString('\n')
	if err != nil {
		c.Close()
		return nil, err
	}
	s.name = strings.TrimSpace(line)
	return s, nil
}

// alive says whether the session still carries bytes both ways.
func (s *peer) alive() bool {
	if _, err := fmt.Fprintln(s, "ping"); err != nil {
		return false
	}
	line, err := s.in.ReadString('\n')
	return err == nil && line == "ping\n"
}

// reset says whether the peer has reset the session.
func (s *peer) reset() bool {
	_, err := s.in.ReadByte()
	return errors.Is(err, syscall.ECONNRESET)
}

// picks are the backends that n sessions in a row get.
func picks(t *testing.T, addr string, n int) string {
	t.Helper()
	var out []string
	for range n {
		s := open(t, addr)
		out = append(out, s.name)
		s.Close()
	}
	return strings.Join(out, " ")
}

func listenerYAML(name, listen, pool string) string {
	return fmt.Sprintf("  - {name: %s, listen: %q, pool: %s}\n", name, listen, pool)
}

func poolYAML(name, options string, backends ...string) string {
	return fmt.Sprintf("  %s: {%sbackends: [\"%s\"]}\n", name, options, strings.Join(backends, `", "`))
}

func lookup(answers map[string][]string) LookupFunc {
	return func(_ context.Context, host string) ([]netip.Addr, error) {
		var out []netip.Addr
		for _, a := range answers[host] {
			out = append(out, netip.MustParseAddr(a))
		}
		if out == nil {
			return nil, errors.New("no such host")
		}
		return out, nil
	}
}
