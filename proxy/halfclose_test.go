// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"sluice/accesslog"
	"sluice/config"
)

func noHalfClose(l *config.Listener) { l.HalfClose = false }

// With half_close off the first end of stream is the session's: what came before
// it arrives, what the other side says afterwards doesn't.
func TestNoHalfCloseFromClient(t *testing.T) {
	datapaths(t, func(t *testing.T, path string) {
		got := make(chan string, 1)
		r := newRig(t, path, []string{serve(t, func(c net.Conn) {
			io.CopyN(c, struct{ io.Reader }{c}, warmBytes)
			b, err := io.ReadAll(c)
			if err != nil {
				t.Error(err)
			}
			got <- string(b)
			time.Sleep(20 * time.Millisecond)
			c.Write([]byte("answer"))
		})}, noHalfClose)
		c := r.dial()
		defer c.Close()
		warm(t, c)
		c.Write([]byte("question"))
		c.CloseWrite()
		want := ""
		if path == "offload" { // nobody is between them: the session has a second to end by itself
			want = "answer"
		}
		if b, err := io.ReadAll(c); err != nil || string(b) != want {
			t.Errorf("the client sees %q, %v, want %q", b, err, want)
		}
		if b := <-got; b != "question" {
			t.Errorf("the backend got %q", b)
		}
		s := r.ended(1)[0]
		expect(t, s, 200, accesslog.ClientClosed, warmBytes+8, warmBytes+uint64(len(want)))
		if s.Datapath != path {
			t.Errorf("datapath %s", s.Datapath)
		}
		r.empty()
	})
}

func TestNoHalfCloseFromBackend(t *testing.T) {
	datapaths(t, func(t *testing.T, path string) {
		rest := make(chan int, 1)
		r := newRig(t, path, []string{serve(t, func(c net.Conn) {
			io.CopyN(c, struct{ io.Reader }{c}, warmBytes)
			c.Write([]byte("bye"))
			c.(*net.TCPConn).CloseWrite()
			b, _ := io.ReadAll(c)
			rest <- len(b)
		})}, noHalfClose)
		c := r.dial()
		defer c.Close()
		warm(t, c)
		if b, err := io.ReadAll(c); err != nil || string(b) != "bye" {
			t.Fatalf("%q, %v", b, err)
		}
		expect(t, r.ended(1)[0], 200, accesslog.BackendClosed, warmBytes, warmBytes+3)
		c.Write([]byte("after the end"))
		if n := <-rest; n != 0 {
			t.Errorf("the backend got %d bytes after its end of stream", n)
		}
		r.empty()
	})
}

// A reader that takes its time, and talks meanwhile: no reset of ours takes what
// it hasn't got yet. What had been taken for the other side arrives as well.
func TestNoHalfCloseDeliversFirst(t *testing.T) {
	const size = 3 << 20
	datapaths(t, func(t *testing.T, path string) {
		type result struct {
			n   uint32
			err error
		}
		got := make(chan result, 1)
		r := newRig(t, path, []string{serve(t, func(c net.Conn) {
			io.CopyN(c, struct{ io.Reader }{c}, warmBytes)
			c.(*net.TCPConn).SetReadBuffer(16 << 10)
			stop := make(chan struct{})
			go func() {
				s := newStream(4, 'd')
				b := make([]byte, 1000)
				for {
					select {
					case <-stop:
						return
					default:
					}
					s.Read(b)
					if _, err := c.Write(b); err != nil {
						return
					}
					time.Sleep(time.Millisecond)
				}
			}()
			n, err := readAll(c, newStream(4, 'u'), 30)
			close(stop)
			got <- result{n, err}
		})}, noHalfClose)
		c := r.dial()
		defer c.Close()
		warm(t, c)
		if err := sendAll(c, newStream(4, 'u'), size, 32<<10, 0, false); err != nil {
			t.Fatal(err)
		}
		n, err := readAll(c, newStream(4, 'd'), 0)
		if err != nil {
			t.Errorf("the client got %d bytes, %v", n, err)
		}
		// Having it all, it may learn by a reset that nobody listens to it.
		if up := <-got; up.n != size || up.err != nil && !errors.Is(up.err, syscall.ECONNRESET) {
			t.Errorf("the backend got %d bytes of %d, %v", up.n, size, up.err)
		}
		s := r.ended(1)[0]
		expect(t, s, 200, accesslog.ClientClosed, warmBytes+size, warmBytes+uint64(n))
		r.empty()
	})
}
