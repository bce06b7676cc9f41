// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/accesslog"
	"sluice/config"
)

func TestAdmission(t *testing.T) {
	rules := func(s string) []config.Rule { return []config.Rule{{Prefix: netip.MustParsePrefix(s)}} }
	tests := []struct {
		name   string
		change func(*config.Listener)
		status int
		reason accesslog.EndReason
	}{
		{"deny", func(c *config.Listener) { c.Deny = rules("127.0.0.0/8") }, 403, accesslog.Denied},
		{"not in allow", func(c *config.Listener) { c.Allow = rules("198.18.0.0/15") }, 403, accesslog.Denied},
		{"allow before deny", func(c *config.Listener) {
			c.Allow = rules("127.0.0.1/32")
			c.Deny = rules("0.0.0.0/0")
		}, 200, accesslog.ClientClosed},
		{"not in deny", func(c *config.Listener) { c.Deny = rules("198.18.0.0/15") }, 200, accesslog.ClientClosed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, "relay", []string{serve(t, echo)}, tt.change)
			c := r.dial()
			c.CloseWrite()
			io.ReadAll(c)
			c.Close()
			s := r.ended(1)[0]
			expect(t, s, tt.status, tt.reason, 0, 0)
			if tt.status != 200 && (len(s.Attempts) != 0 || s.Datapath != "") {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	for name, change := range map[string]func(*config.Listener){
		"listener": func(c *config.Listener) { c.MaxConns = 3 },
		"address":  func(c *config.Listener) { c.MaxConnsPerIP = 3 },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "relay", []string{serve(t, echo)}, change)
			var held []net.Conn
			b := make([]byte, 1)
			for range 3 {
				c := r.dial()
				c.Write(b)
				if _, err := io.ReadFull(c, b); err != nil {
					t.Fatal(err)
				}
				held = append(held, c)
			}
			c := r.dial()
			if _, err := c.Read(b); err == nil {
				t.Error("a fourth session was let in")
			}
			c.Close()
			expect(t, r.ended(1)[0], 503, accesslog.Limited, 0, 0)
			held[0].Close()
			r.ended(2)
			c = r.dial()
			c.Write(b)
			if _, err := io.ReadFull(c, b); err != nil {
				t.Errorf("the place of one that left isn't free: %v", err)
			}
			c.Close()
			for _, c := range held {
				c.Close()
			}
		})
	}
}

func TestAcceptHeader(t *testing.T) {
	v2 := appendV2(nil, netip.MustParseAddrPort("198.18.0.9:1234"), netip.MustParseAddrPort("198.18.0.1:80"))
	tests := []struct {
		name, head string
		status     int
		reason     accesslog.EndReason
		client     string
	}{
		{"v1", "PROXY TCP4 198.18.0.9 198.18.0.1 1234 80\r\n", 200, accesslog.ClientClosed, "198.18.0.9:1234"},
		{"v2", string(v2), 200, accesslog.ClientClosed, "198.18.0.9:1234"},
		{"unknown", "PROXY UNKNOWN\r\n", 200, accesslog.ClientClosed, ""},
		{"none", "hello world, this is no header\r\n", 400, accesslog.BadHeader, ""},
		{"cut short", "PROXY TC", 400, accesslog.BadHeader, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, "relay", []string{serve(t, echo)}, func(c *config.Listener) { c.ProxyAccept = true })
			c := r.dial()
			defer c.Close()
			for _, piece := range []string{tt.head[:5], tt.head[5:] + "payload"} {
				c.Write([]byte(piece))
				time.Sleep(20 * time.Millisecond)
			}
			c.CloseWrite()
			b, _ := io.ReadAll(c)
			s := r.ended(1)[0]
			if tt.status != 200 {
				expect(t, s, tt.status, tt.reason, 0, 0)
				return
			}
			expect(t, s, 200, tt.reason, 7, 7)
			if string(b) != "payload" {
				t.Errorf("got %q", b)
			}
			if got := s.Client.AddrPort.String(); tt.client != "" && got != tt.client {
				t.Errorf("client %s", got)
			}
			if s.ProxyAddr.IsValid() != (tt.client != "") {
				t.Errorf("proxy address %v", s.ProxyAddr)
			}
		})
	}
}

// TestHeaderTimeout: a client that doesn't complete its header is let go, and
// by default after as long as nginx waits.
func TestHeaderTimeout(t *testing.T) {
	const wait = 300 * time.Millisecond
	r := newRigOf(t, "relay", []string{serve(t, echo)}, func(c *config.Listener) { c.ProxyAccept = true }, Options{Loops: 2, HeaderTimeout: wait})
	for i, head := range []string{"", "PROXY TCP4 198.18"} {
		begun := time.Now() // before the accept, from which on the loop counts
		c := r.dial()
		c.Write([]byte(head))
		c.SetReadDeadline(begun.Add(20 * time.Second))
		io.ReadAll(c)
		if took := time.Since(begun); took < wait || took > 15*time.Second {
			t.Errorf("%q: let go after %v", head, took)
		}
		c.Close()
		expect(t, r.ended(i + 1)[i], 200, accesslog.HeaderTimeout, 0, 0)
	}
	e, err := New(Options{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if e.headerTimeout != 30*time.Second {
		t.Errorf("%v by default", e.headerTimeout)
	}
}

// TestBadHeaderIsRefusedAtOnce: nobody waits for the rest of what can't become
// a header.
func TestBadHeaderIsRefusedAtOnce(t *testing.T) {
	r := newRig(t, "relay", []string{serve(t, echo)}, func(c *config.Listener) { c.ProxyAccept = true })
	for i, junk := range []string{"PROXZ", "PROXY TCP5 1.2.3.4", "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", "\r\n\r\n\x00\r\nQUIT\n\x31", "\x00"} {
		c := r.dial()
		c.Write([]byte(junk))
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		var late net.Error
		if _, err := c.Read(make([]byte, 1)); errors.As(err, &late) && late.Timeout() {
			t.Errorf("%q is being waited on", junk)
		}
		c.Close()
		expect(t, r.ended(i + 1)[i], 400, accesslog.BadHeader, 0, 0)
	}
}

func TestSendHeader(t *testing.T) {
	datapaths(t, func(t *testing.T, path string) {
		for _, kind := range []config.ProxyHeader{config.ProxyV1, config.ProxyV2} {
			head := make(chan netip.AddrPort, 1)
			r := newRig(t, path, []string{serve(t, func(c net.Conn) {
				br := bufio.NewReader(c)
				b, _ := br.Peek(28)
				if kind == config.ProxyV1 {
					line, _ := br.Peek(br.Buffered())
					b = line[:strings.Index(string(line), "\n")+1]
				}
				src, _, n, err := parseHeader(b)
				if err != nil {
					t.Errorf("%q: %v", b, err)
				}
				br.Discard(n)
				head <- src
				io.Copy(struct{ io.Writer }{c}, br)
			})}, func(c *config.Listener) { c.ProxySend = kind })
			c := r.dial()
			warm(t, c)
			if src := <-head; src.String() != c.LocalAddr().String() {
				t.Errorf("%s: backend was told %v, not %v", kind, src, c.LocalAddr())
			}
			c.CloseWrite()
			io.ReadAll(c)
			c.Close()
			s := r.ended(1)[0]
			expect(t, s, 200, accesslog.ClientClosed, warmBytes, warmBytes)
			if s.Attempts[0].BytesSent <= warmBytes {
				t.Errorf("the header isn't counted: %+v", s.Attempts[0])
			}
		}
	})
}
