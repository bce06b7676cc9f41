// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net"
	"testing"
	"time"
)

// While a reader takes what lies in a socket, and acknowledges it, the bytes
// that have entered are always as many; a single look may miss some of them,
// and must never see more.
func TestEnteredExactly(t *testing.T) {
	start := make(chan struct{})
	addr := serve(t, func(c net.Conn) {
		<-start
		b := make([]byte, 512)
		for {
			if _, err := c.Read(b); err != nil {
				return
			}
		}
	})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	fill := make([]byte, 64<<10)
	c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	for {
		if _, err := c.Write(fill); err != nil {
			break // full
		}
	}
	var want uint64
	looks, missed := 0, 0
	err = raw.Control(func(fd uintptr) {
		fd32 := int32(fd)
		want, _ = enteredExactly(fd32)
		close(start)
		for outq(fd32) > 0 {
			if got, ok := enteredExactly(fd32); !ok || got != want {
				t.Errorf("%d bytes have entered, not %d", got, want)
				return
			}
			got, _ := entered(fd32)
			if got > want {
				t.Errorf("a look sees %d bytes of %d", got, want)
				return
			}
			if looks++; got < want {
				missed++
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d looks at %d bytes, %d of them missed some", looks, want, missed)
	if _, ok := enteredExactly(-1); ok {
		t.Error("no socket, and yet a number")
	}
}
