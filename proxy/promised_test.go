// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"io"
	"net"
	"testing"
	"time"

	"sluice/accesslog"
	"sluice/internal/needs"
	"sluice/internal/netrig"
)

// TestWindowOfOurs: a peer may still use the window that our socket had offered when the
// session is forwarded, though the other end offers less. What it sends so is believed:
// else an end that has room by the time it comes would acknowledge what the record doesn't
// know of, and no packet after that would count.
func TestWindowOfOurs(t *testing.T) {
	t.Parallel()
	needs.Offload(t)
	const pieces, piece = 12, 128 << 10 // each more than the receiver offers
	const size = pieces * piece
	for _, who := range []string{"client", "backend"} { // sends
		t.Run(who, func(t *testing.T) {
			t.Parallel()
			h := elsewhere(t, netrig.Options{}, false)
			sender, receiver := h.Client, h.Backend
			if who == "backend" {
				sender, receiver = receiver, sender
			}
			features(t, false, []netrig.Feature{netrig.TSO, netrig.GSO}, sender)
			receiver.Sysctl(t, "ipv4/tcp_rmem", "4096 8192 16384")
			send := func(c net.Conn) error {
				s := newStream(6, 's')
				for range pieces {
					if _, err := io.CopyN(c, s, piece); err != nil {
						return err
					}
					time.Sleep(10 * time.Millisecond) // the next one finds all quiet
				}
				return c.(*net.TCPConn).CloseWrite()
			}
			take := func(c net.Conn) error {
				if n, err := readAll(c, newStream(6, 's'), 0); err != nil || n != size {
					t.Errorf("%d bytes of %d, %v", n, size, err)
				}
				return c.(*net.TCPConn).CloseWrite()
			}
			atClient, atBackend := send, take
			if who == "backend" {
				atClient, atBackend = take, send
			}
			verdict := make(chan error, 1)
			r := newRig(t, "offload", []string{serve(t, func(c net.Conn) {
				c.SetDeadline(time.Now().Add(patience))
				io.CopyN(c, struct{ io.Reader }{c}, 1)
				err := atBackend(c)
				io.Copy(io.Discard, c)
				verdict <- err
			})}, nil)
			for n := range 5 {
				c := r.dial()
				c.SetDeadline(time.Now().Add(patience))
				if _, err := c.Write([]byte{1}); err != nil {
					t.Fatal(err)
				}
				_, err := io.ReadFull(c, make([]byte, 1))
				must(t, err)
				must(t, atClient(c))
				io.Copy(io.Discard, c)
				c.Close()
				must(t, <-verdict)
				s, received, sent, reason := r.ended(n + 1)[n], uint64(1+size), uint64(1), accesslog.ClientClosed
				if who == "backend" {
					received, sent, reason = sent, received, accesslog.BackendClosed
				}
				expect(t, s, 200, reason, received, sent)
				if s.Datapath != "offload" {
					t.Errorf("datapath %s", s.Datapath)
				}
			}
			if n := r.outcome("unsure"); n != 0 {
				t.Errorf("%d packets weren't believed", n)
			}
			r.empty()
		})
	}
}
