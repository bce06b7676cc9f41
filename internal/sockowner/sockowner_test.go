// SPDX-License-Identifier: Apache-2.0

package sockowner

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

// TestFindsOurselves: listening sockets of each kind are found, with their
// addresses, and are ours; sockets that don't listen aren't.
func TestFindsOurselves(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a socket") // with a blank
	for _, c := range []struct{ network, addr string }{
		{"tcp4", "127.0.0.1:0"}, {"tcp4", "0.0.0.0:0"}, {"tcp6", "[::1]:0"}, {"tcp6", "[::]:0"}, {"unix", path},
	} {
		l, err := (&net.ListenConfig{}).Listen(context.Background(), c.network, c.addr)
		if err != nil {
			t.Logf("%s %s: %v", c.network, c.addr, err) // IPv6 may be off
			continue
		}
		want := Socket{Path: path}
		if a, ok := l.Addr().(*net.TCPAddr); ok {
			want = Socket{Addr: netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), a.AddrPort().Port())}
		}
		inodes := map[uint64]bool{}
		for _, s := range Listening() {
			if s.Addr == want.Addr && s.Path == want.Path {
				inodes[s.Inode] = true
			}
		}
		if len(inodes) != 1 {
			t.Errorf("%s %s: found %d times in %+v", c.network, c.addr, len(inodes), Listening())
		} else if pid := Owner(inodes); pid != os.Getpid() {
			t.Errorf("%s %s: owned by %d, we are %d", c.network, c.addr, pid, os.Getpid())
		}
		l.Close()
		for _, s := range Listening() {
			if inodes[s.Inode] {
				t.Errorf("%s %s: still there after it was closed", c.network, c.addr)
			}
		}
	}
	if pid := Owner(map[uint64]bool{0: true}); pid != 0 {
		t.Errorf("a socket that isn't there is owned by %d", pid)
	}
}

// TestLines are lines of the kernel's tables, and what isn't one.
func TestLines(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the lines below are a little-endian machine's")
	}
	for _, c := range []struct {
		line string
		want Socket
	}{
		{"   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1234 1 0000000000000000 100 0 0 10 0",
			Socket{Addr: netip.MustParseAddrPort("127.0.0.1:8080"), Inode: 1234}},
		{"   1: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1 0",
			Socket{Addr: netip.MustParseAddrPort("[::]:22"), Inode: 77}},
		{"   2: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 1235 1 0", Socket{}},
		{"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode", Socket{}},
		{"   3: 0100007F 00000000:0000 0A 0 0 0 0 0 1 1", Socket{}},
		{"   3: 01007F:1F90 00000000:0000 0A 0 0 0 0 0 1 1", Socket{}},
		{"", Socket{}},
	} {
		got, ok := parseTCP(c.line)
		if ok != (c.want.Inode != 0) || ok && got != c.want {
			t.Errorf("%q: %+v, %v", c.line, got, ok)
		}
	}
	for _, c := range []struct {
		line string
		want Socket
	}{
		{"0000000000000000: 00000002 00000000 00010000 0001 01 4321 /run/a b", Socket{Path: "/run/a b", Inode: 4321}},
		{"0000000000000000: 00000003 00000000 00000000 0001 03 4322 /run/a", Socket{}},
		{"0000000000000000: 00000002 00000000 00010000 0001 01 4323", Socket{}},
		{"Num       RefCount Protocol Flags    Type St Inode Path", Socket{}},
		{"", Socket{}},
	} {
		got, ok := parseUnix(c.line)
		if ok != (c.want.Inode != 0) || ok && got != c.want {
			t.Errorf("%q: %+v, %v", c.line, got, ok)
		}
	}
}
