// SPDX-License-Identifier: Apache-2.0

package rawtcp

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// TestAppend: lengths and checksums, by a receiver's arithmetic: a sum over all that
// a checksum covers is all ones.
func TestAppend(t *testing.T) {
	for _, tt := range []struct {
		name string
		g    Segment
		ip   int // bytes of the network header
	}{
		{"reset", Segment{From: addr("198.18.0.1:80"), To: addr("198.18.0.2:4000"), Seq: 1 << 31, Flags: FlagRST}, 20},
		{"probe", Segment{From: addr("198.18.255.255:65535"), To: addr("10.0.0.1:1"), Seq: 0xffffffff, Ack: 0xfffffffe, Window: 0xffff, Flags: FlagACK}, 20},
		{"IPv6", Segment{From: addr("[fd00::1]:80"), To: addr("[fd00::ffff:2]:4000"), Seq: 7, Ack: 9, Flags: FlagRST | FlagACK}, 40},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := tt.g.Append(nil)
			if len(b) != tt.ip+20 {
				t.Fatalf("%d bytes", len(b))
			}
			if tt.ip == 20 && (sum(b[:20], 0) != 0xffff || int(b[2])<<8|int(b[3]) != len(b)) {
				t.Errorf("network header % x", b[:20])
			}
			if tt.ip == 40 && int(b[4])<<8|int(b[5]) != 20 {
				t.Errorf("network header % x", b[:40])
			}
			addresses := b[tt.ip-2*len(tt.g.From.Addr().AsSlice()) : tt.ip]
			if got := sum(b[tt.ip:], uint32(sum(addresses, 20+6))); got != 0xffff {
				t.Errorf("the sum is %#x: % x", got, b)
			}
		})
	}
}

// TestReset: a reset with the number that its receiver expects ends a connection, as
// if its peer had sent it; any other doesn't.
func TestReset(t *testing.T) {
	s, err := Open()
	if errors.Is(err, ErrNotPermitted) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, host := range []string{"127.0.0.1", "::1"} {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			t.Skipf("no %s here: %v", host, err)
		}
		defer l.Close()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		peer, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		next := expects(t, c.(*net.TCPConn))
		from, to := addr(peer.LocalAddr().String()), addr(c.LocalAddr().String())
		if err := s.Reset(from, to, next+1); err != nil { // challenged
			t.Fatal(err)
		}
		if err := s.Probe(from, to, next-1, 0); err != nil { // answered
			t.Fatal(err)
		}
		peer.Write([]byte("x"))
		b := make([]byte, 1)
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatalf("%s: after a reset that is no one's: %v", host, err)
		}
		if err := s.Reset(from, to, next+1); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(b); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %v", host, err)
		}
	}
}

// expects is the next sequence number that a connection expects.
func expects(t *testing.T, c *net.TCPConn) (next uint32) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		set := func(name, v int) {
			if err := unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, name, v); err != nil {
				t.Fatal(err)
			}
		}
		set(unix.TCP_REPAIR, 1)
		set(unix.TCP_REPAIR_QUEUE, 1) // TCP_RECV_QUEUE
		n, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
		if err != nil {
			t.Fatal(err)
		}
		set(unix.TCP_REPAIR, -1) // TCP_REPAIR_OFF_NO_WP: without a probe of the window
		next = uint32(n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
