// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/accesslog"
)

// roomFor lets a peer send so much before it is read, in the tests' own
// network namespace.
func roomFor(t *testing.T, bytes int) {
	t.Helper()
	const name = "/proc/sys/net/ipv4/tcp_rmem"
	old, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, fmt.Appendf(nil, "4096 %d %d", 4*bytes, 8*bytes), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.WriteFile(name, old, 0) })
}

// smallDial is a client that takes little before it reads.
func smallDial(t *testing.T, r *rig) *net.TCPConn {
	t.Helper()
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { rawSetInt(int32(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 16<<10) })
	}}
	c, err := d.Dial("tcp", r.front.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// A backend ends its side just while the session enters the map, when the
// client's bytes move already: both directions go on to their own ends.
func TestBackendClosesAtTheDoor(t *testing.T) {
	needSplice(t)
	const last, more = 256 << 10, 1 << 20
	roomFor(t, 16*last)
	for _, c := range []struct {
		name   string
		reset  bool // by the backend, once it has sent its last
		slow   uint32
		reason accesslog.EndReason
	}{
		{"half-close", false, 0, accesslog.BackendClosed},
		{"half-close, a client that reads slowly", false, 40, accesslog.BackendClosed},
		{"reset", true, 0, accesslog.BackendReset},
	} {
		t.Run(c.name, func(t *testing.T) {
			inside, closed, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
			var uploaded uint32
			var uploadErr error
			addr := serve(t, func(conn net.Conn) {
				defer close(done)
				b := make([]byte, 8)
				for going := true; going; {
					if _, err := io.ReadFull(conn, b); err != nil {
						t.Error(err)
						return
					}
					select {
					case <-inside: // this message was moved by the kernel
						going = false
					default:
						conn.Write(b)
					}
				}
				io.CopyN(conn, newStream(9, 'd'), last)
				conn.(*net.TCPConn).CloseWrite()
				if c.reset {
					conn.(*net.TCPConn).SetLinger(0)
					conn.Close()
					close(closed)
					return
				}
				close(closed)
				uploaded, uploadErr = readAll(conn, newStream(9, 'u'), 0)
			})
			clients := make(chan *net.TCPConn, 1)
			r := newRigPausing(t, "splice", []string{addr}, nil, Options{Loops: 1}, func() {
				close(inside)
				(<-clients).Write([]byte("12345678"))
				<-closed
				time.Sleep(20 * time.Millisecond) // for the FIN, or the reset
			})
			client := smallDial(t, r)
			clients <- client
			defer client.Close()
			client.SetDeadline(time.Now().Add(20 * time.Second))
			b := make([]byte, 8)
			for entered := false; !entered; {
				if _, err := client.Write([]byte("12345678")); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(client, b); err != nil {
					t.Fatal(err)
				}
				select {
				case <-inside:
					entered = true
				case <-time.After(2 * time.Millisecond):
				}
			}
			n, err := readAll(client, newStream(9, 'd'), c.slow)
			if c.reset {
				if !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("%d bytes, %v", n, err)
				}
			} else {
				if n != last || err != nil {
					t.Fatalf("%d bytes of the backend's last %d: %v", n, last, err)
				}
				if err := sendAll(client, newStream(9, 'u'), more, 1<<14, 0, false); err != nil {
					t.Fatal(err)
				}
			}
			s := r.ended(1)[0]
			if s.Reason != c.reason || s.Status != 200 {
				t.Errorf("record %+v", s)
			}
			r.empty()
			<-done
			if !c.reset && (uploaded != more || uploadErr != nil || s.BytesSpliced != more+8 || s.Datapath != "splice") {
				t.Errorf("%d bytes came up, %v; record %+v", uploaded, uploadErr, s)
			}
		})
	}
}
