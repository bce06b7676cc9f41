// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"sluice/accesslog"
	"sluice/session"
	"sluice/vmtest/lacks"
)

func TestFaultOf(t *testing.T) {
	for want, errnos := range map[session.Fault][]unix.Errno{
		session.BackendFault: {unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.ETIMEDOUT, unix.ECONNRESET, unix.ENOENT, unix.EAGAIN, unix.EACCES, unix.EPERM},
		session.LackToward:   {unix.EADDRNOTAVAIL, unix.EAFNOSUPPORT},
		session.Lack:         {unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.ENOSPC},
	} {
		for _, e := range errnos {
			if got := session.FaultOf(e); got != want {
				t.Errorf("%v is %d, want %d", e, got, want)
			}
		}
	}
}

// fewPorts leaves connections of this namespace four local ports toward each
// address.
func fewPorts(t *testing.T) {
	const path = "/proc/sys/net/ipv4/ip_local_port_range"
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(devices()) != 1 {
		lacks.Skip(t, "root", "not in a namespace of its own")
	}
	if err := os.WriteFile(path, []byte("50000 50003"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.WriteFile(path, before, 0) })
}

// devices lists those of the namespace.
func devices() (list []string) {
	b, _ := os.ReadFile("/proc/net/dev")
	for _, line := range strings.Split(string(b), "\n") {
		if name, _, ok := strings.Cut(line, ":"); ok {
			list = append(list, strings.TrimSpace(name))
		}
	}
	return list
}

// useUp takes all local ports toward addr.
func useUp(t *testing.T, addr string) (release func()) {
	var held []net.Conn
	for {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			break
		}
		if held = append(held, c); len(held) > 100 {
			t.Fatal("no end of ports")
		}
	}
	return func() {
		for _, c := range held {
			c.(*net.TCPConn).SetLinger(0) // no TIME_WAIT
			c.Close()
		}
	}
}

// TestPortsUsedUp: where local ports lack toward one backend, another serves;
// nobody is ejected for it, and it is said, once a second at most.
func TestPortsUsedUp(t *testing.T) {
	a, b := serve(t, echo), serve(t, echo)
	var log syncBuffer
	r := newRigOf(t, "relay", []string{a, b}, nil, Options{Loops: 2, Log: zerolog.New(&log).Level(zerolog.WarnLevel)})
	fewPorts(t)
	port := 20000 // outside any range, on an address that nobody else uses
	ask := func() string {
		t.Helper()
		port++
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 77), Port: port}}
		c, err := d.Dial("tcp", r.front.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.(*net.TCPConn).SetLinger(0) // no TIME_WAIT, here and toward the backend
		c.Write([]byte("hello"))
		got := make([]byte, 5)
		n, _ := io.ReadFull(c, got)
		return string(got[:n])
	}
	attempts := func(s accesslog.Record) (list []string) {
		for _, a := range s.Attempts {
			list = append(list, a.Addr)
		}
		return list
	}
	freeA := useUp(t, a)
	n := 0
	for range 4 {
		if got := ask(); got != "hello" {
			t.Errorf("got %q while another backend is free", got)
		}
		n++
		if s := r.ended(n)[n-1]; s.Status != 200 || s.Attempts[len(s.Attempts)-1].Addr != b {
			t.Errorf("%d %v", s.Status, attempts(s))
		}
	}
	freeB := useUp(t, b)
	ask()
	n++
	s := r.ended(n)[n-1]
	expect(t, s, 500, accesslog.Internal, 0, 0)
	if len(s.Attempts) != 2 {
		t.Errorf("attempts %v", attempts(s))
	}
	freeA()
	freeB()
	for range 4 {
		if got := ask(); got != "hello" {
			t.Errorf("got %q after ports came free", got)
		}
		n++
		if s := r.ended(n)[n-1]; len(s.Attempts) != 1 {
			t.Errorf("somebody was ejected: %v", attempts(s))
		}
	}
	for _, b := range r.pool.Backends() {
		if st := b.Snapshot(time.Now()); st.State != "up" || st.Failed != 0 || st.Total < 2 {
			t.Errorf("%+v", st)
		}
	}
	if got := strings.Count(log.String(), "ip_local_port_range"); got < 1 || got > 3 {
		t.Errorf("%d lines: %s", got, log.String())
	}
}

// TestSeldom: once a second, and what was missed is counted.
func TestSeldom(t *testing.T) {
	var s seldom
	second := int64(time.Second)
	for i, c := range []struct {
		at     int64
		missed uint64
		ok     bool
	}{{second, 0, true}, {second + 1, 0, false}, {2*second - 1, 0, false}, {2 * second, 2, true}, {9 * second, 0, true}} {
		if missed, ok := s.take(c.at); missed != c.missed || ok != c.ok {
			t.Errorf("%d: %d %v", i, missed, ok)
		}
	}
}

// syncBuffer is a log that loops write to.
type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
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
