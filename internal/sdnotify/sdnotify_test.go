// SPDX-License-Identifier: Apache-2.0

package sdnotify

import (
	"net"
	"path/filepath"
	"regexp"
	"testing"
)

func TestMessages(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	for _, socket := range []string{path, "@sluice-sdnotify-test"} {
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		n := New(socket)
		for _, c := range []struct {
			send func() error
			want string
		}{
			{func() error { return n.Ready("2 listeners") }, `^READY=1\nSTATUS=2 listeners$`},
			{n.Reloading, `^RELOADING=1\nMONOTONIC_USEC=[1-9][0-9]*$`},
			{func() error { return n.Stopping("draining") }, `^STOPPING=1\nSTATUS=draining$`},
		} {
			if err := c.send(); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 256)
			k, err := l.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			if !regexp.MustCompile(c.want).Match(buf[:k]) {
				t.Errorf("%s: got %q, want %s", socket, buf[:k], c.want)
			}
		}
	}
}

func TestNobodyThere(t *testing.T) {
	if err := New("").Ready(""); err != nil {
		t.Errorf("without a manager: %v", err)
	}
	if err := New("relative").Ready(""); err == nil {
		t.Error("a relative NOTIFY_SOCKET: no error")
	}
	if err := New(filepath.Join(t.TempDir(), "none")).Ready(""); err == nil {
		t.Error("a socket that isn't there: no error")
	}
}
