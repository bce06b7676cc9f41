// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"sluice/accesslog"
)

// say writes one message, its last byte as urgent data if wanted.
func say(c net.Conn, b []byte, urgent bool) error {
	if urgent {
		return sendUrgent(c.(*net.TCPConn), b)
	}
	_, err := c.Write(b)
	return err
}

// Urgent bytes before a session enters the map, while it does and while it is
// there, the last one before an end of stream too: each in its place, and both
// ends of stream are passed on.
func TestUrgentBytesAroundTheMap(t *testing.T) {
	t.Parallel()
	const rounds = 60
	every := make([]int, rounds)
	for i := range every {
		every[i] = i
	}
	for _, c := range []struct {
		name   string
		rounds []int // those whose message ends with an urgent byte
	}{
		{"the first message", []int{0}},
		{"before the map", []int{3, 4, 9}},
		{"on the way in", []int{14, 15, 16, 17, 18}},
		{"in the map", []int{40, 41, 50}},
		{"the last message", []int{rounds - 1}},
		{"before and in the map", []int{1, 45}},
		{"every message", every},
	} {
		for _, speaker := range []string{"client", "backend", "both"} {
			t.Run(c.name+" of "+speaker, func(t *testing.T) {
				datapathsAtOnce(t, func(t *testing.T, path string) {
					ours := speaker != "backend"
					theirs := speaker != "client"
					ended := make(chan error, 1)
					r := newRig(t, path, []string{serve(t, func(conn net.Conn) {
						b := make([]byte, 8)
						for i := range rounds {
							if _, err := io.ReadFull(conn, b); err != nil {
								ended <- fmt.Errorf("message %d: %w", i, err)
								return
							}
							say(conn, b, theirs && slices.Contains(c.rounds, i))
						}
						rest, err := io.ReadAll(conn)
						if len(rest) > 0 || err != nil {
							err = fmt.Errorf("%d bytes after the last message, %v", len(rest), err)
						}
						ended <- err
					})}, nil)
					conn := r.dial()
					defer conn.Close()
					conn.SetDeadline(time.Now().Add(10 * time.Second))
					b := make([]byte, 8)
					for i := range rounds {
						want := fmt.Appendf(nil, "round%03d", i)
						if err := say(conn, want, ours && slices.Contains(c.rounds, i)); err != nil {
							t.Fatal(err)
						}
						// All eight bytes come in line: nothing is passed on as urgent.
						if _, err := io.ReadFull(conn, b); err != nil || !bytes.Equal(b, want) {
							t.Fatalf("round %d: %q, %v; sessions:\n%s", i, b, err, r.left())
						}
					}
					conn.CloseWrite()
					if rest, err := io.ReadAll(conn); err != nil || len(rest) > 0 {
						t.Fatalf("%d bytes more, %v; sessions:\n%s", len(rest), err, r.left())
					}
					if err := <-ended; err != nil {
						t.Error(err)
					}
					s := r.ended(1)[0]
					expect(t, s, 200, accesslog.ClientClosed, 8*rounds, 8*rounds)
					// An urgent byte that one side still has is no moment to hand over.
					stays := path == "offload" && c.name == "every message" && s.Datapath == "relay"
					if s.Datapath != path && !stays {
						t.Errorf("datapath %s, fallbacks %v, %+v", s.Datapath, r.settings.Counters.Snapshot().Fallbacks, r.outcomes())
					}
				})
			})
		}
	}
}

// Urgent bytes amid bulk that a session in the map has a slow reader for: they
// are passed to userspace with the rest, or redirected.
func TestUrgentBytesOverTheMark(t *testing.T) {
	const size = 6 << 20
	marks := []int{0, 1, 300_000, 1_000_000, 1_000_001, 3_000_000, size - 1}
	datapaths(t, func(t *testing.T, path string) {
		for _, way := range []string{"up", "down"} {
			t.Run(way, func(t *testing.T) {
				ended := make(chan error, 1)
				play := func(c net.Conn, sends bool) error {
					if sends {
						return sendWithMarks(c, newStream(11, 'u'), size, marks, 0)
					}
					time.Sleep(300 * time.Millisecond)
					n, err := readAll(c, newStream(11, 'u'), 40)
					if err == nil && n != size {
						err = fmt.Errorf("%d bytes of %d", n, size)
					}
					return err
				}
				r := newRig(t, path, []string{serve(t, func(c net.Conn) {
					io.CopyN(c, struct{ io.Reader }{c}, warmBytes)
					ended <- play(c, way == "down")
				})}, nil)
				c := r.dial()
				defer c.Close()
				c.SetDeadline(time.Now().Add(20 * time.Second))
				warm(t, c)
				if err := play(c, way == "up"); err != nil {
					t.Fatalf("%v; sessions:\n%s", err, r.left())
				}
				if err := <-ended; err != nil {
					t.Error(err)
				}
				c.CloseWrite()
				io.ReadAll(c)
				if path == "splice" && r.engine.splice.Counts().PassedOver == 0 {
					t.Error("the mark was never reached")
				}
				if s := r.ended(1)[0]; s.Status != 200 || s.Datapath != path || s.BytesReceived+s.BytesSent != 2*warmBytes+size {
					t.Errorf("%+v", s)
				}
			})
		}
	})
}
