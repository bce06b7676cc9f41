// SPDX-License-Identifier: Apache-2.0

package handshakes

import (
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"sluice/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// TestPending: a handshake whose last ACK doesn't come is told, for both
// families, also on a socket for both, and others aren't.
func TestPending(t *testing.T) {
	for _, c := range []struct{ listen, dial string }{
		{"127.0.0.1:0", "127.0.0.1"}, {"[::1]:0", "::1"}, {":0", "127.0.0.1"}, {":0", "::1"},
	} {
		t.Run(c.listen+" "+c.dial, func(t *testing.T) {
			var o Observer
			l, err := net.Listen("tcp", c.listen)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			port := uint16(l.Addr().(*net.TCPAddr).Port)
			whole, err := net.Dial("tcp", net.JoinHostPort(c.dial, strconv.Itoa(int(port))))
			if err != nil {
				t.Fatal(err)
			}
			defer whole.Close()
			if got, err := o.pending(port); err != nil || len(got) != 0 {
				t.Fatalf("%d handshakes under way, error %v; there is none", len(got), err)
			}
			half := nstest.HalfOpen(t, netip.AddrPortFrom(netip.MustParseAddr(c.dial), port))
			if got, err := o.pending(port); err != nil || len(got) != 1 {
				t.Fatalf("%d handshakes under way, error %v; there is one", len(got), err)
			}
			if got, err := o.pending(port + 1); err != nil || len(got) != 0 {
				t.Fatalf("%d handshakes toward another port, error %v", len(got), err)
			}
			ended := make(chan error, 1)
			go func() { ended <- o.Await(port, time.Minute) }()
			select {
			case err := <-ended:
				t.Fatalf("didn't wait: %v", err)
			case <-time.After(50 * time.Millisecond):
			}
			half.Hear()
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestAwaitIsBounded: what never completes is waited for no longer than asked.
func TestAwaitIsBounded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	nstest.HalfOpen(t, l.Addr().(*net.TCPAddr).AddrPort())
	var o Observer
	ended := make(chan error, 1)
	go func() { ended <- o.Await(port, 20*time.Millisecond) }()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("waits for ever")
	}
}

// TestTogether: the ports of a range that goes ask the kernel once, not once
// each, and each is told of its own handshakes.
func TestTogether(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	nstest.HalfOpen(t, l.Addr().(*net.TCPAddr).AddrPort())
	const asking = 500
	var o Observer
	o.turn.Lock() // as a dump that is being made
	got := make(chan int, asking)
	for i := range asking {
		go func() {
			found, err := o.pending(port - asking/2 + uint16(i))
			if err != nil {
				t.Error(err)
			}
			got <- len(found)
		}()
	}
	joined := func() int {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.next == nil {
			return 0
		}
		return len(o.next.ports)
	}
	for end := time.Now().Add(20 * time.Second); joined() < asking; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d of %d wait for the same dump", joined(), asking)
		}
	}
	o.turn.Unlock()
	sum := 0
	for range asking {
		sum += <-got
	}
	if sum != 1 {
		t.Errorf("%d handshakes were told, there is one", sum)
	}
}
