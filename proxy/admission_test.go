// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/config"
	"sluice/stats"
)

func TestAdmission(t *testing.T) {
	prefix := netip.MustParsePrefix
	tests := []struct {
		name   string
		change func(*config.Listener)
		status int
		reason stats.EndReason
	}{
		{"deny", func(c *config.Listener) { c.Deny = []netip.Prefix{prefix("127.0.0.0/8")} }, 403, stats.Denied},
		{"not in allow", func(c *config.Listener) { c.Allow = []netip.Prefix{prefix("198.18.0.0/15")} }, 403, stats.Denied},
		{"allow before deny", func(c *config.Listener) {
			c.Allow = []netip.Prefix{prefix("127.0.0.1/32")}
			c.Deny = []netip.Prefix{prefix("0.0.0.0/0")}
		}, 200, stats.ClientClosed},
		{"not in deny", func(c *config.Listener) { c.Deny = []netip.Prefix{prefix("198.18.0.0/15")} }, 200, stats.ClientClosed},
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
			expect(t, r.ended(1)[0], 503, stats.Limited, 0, 0)
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
		reason     stats.EndReason
		client     string
	}{
		{"v1", "PROXY TCP4 198.18.0.9 198.18.0.1 1234 80\r\n", 200, stats.ClientClosed, "198.18.0.9:1234"},
		{"v2", string(v2), 200, stats.ClientClosed, "198.18.0.9:1234"},
		{"unknown", "PROXY UNKNOWN\r\n", 200, stats.ClientClosed, ""},
		{"none", "hello world, this is no header\r\n", 400, stats.BadHeader, ""},
		{"cut short", "PROXY TC", 400, stats.BadHeader, ""},
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
			expect(t, s, 200, stats.ClientClosed, warmBytes, warmBytes)
			if s.Attempts[0].BytesSent <= warmBytes {
				t.Errorf("the header isn't counted: %+v", s.Attempts[0])
			}
		}
	})
}
