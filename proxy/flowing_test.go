// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/accesslog"
)

// flowing is a session of which both ends send until they are told to finish, and
// check what comes.
type flowing struct {
	r               *rig
	path            string
	client, backend *net.TCPConn
	stop            chan struct{}
	wg              sync.WaitGroup
	sent, got       [2]atomic.Int64 // by the client, by the backend
	failed          [2]error        // of reading
}

// newFlowing has one, which has left its loop where the datapath has another place.
func newFlowing(t *testing.T, path string) (*rig, *flowing) {
	t.Helper()
	met := make(chan *net.TCPConn)
	over := make(chan struct{})
	r := newRig(t, path, []string{serve(t, func(c net.Conn) {
		met <- c.(*net.TCPConn)
		<-over
	})}, nil)
	f := &flowing{r: r, path: path, stop: make(chan struct{})}
	f.client = r.dial()
	t.Cleanup(func() { f.client.Close(); close(over) })
	f.backend = <-met
	for _, c := range []*net.TCPConn{f.client, f.backend} {
		c.SetDeadline(time.Now().Add(patience))
	}
	for i := range 40 {
		for _, ends := range [][2]*net.TCPConn{{f.client, f.backend}, {f.backend, f.client}} {
			b := []byte{byte(i)}
			if _, err := ends[0].Write(b); err != nil {
				t.Fatal(err)
			}
			if _, err := ends[1].Read(b); err != nil || b[0] != byte(i) {
				t.Fatalf("message %d: %d, %v", i, b[0], err)
			}
		}
	}
	if path != "relay" {
		r.moved()
	}
	for i, c := range []*net.TCPConn{f.client, f.backend} {
		f.wg.Go(func() {
			s, b := newStream(7, byte(i)), make([]byte, 16<<10)
			for {
				select {
				case <-f.stop:
					c.CloseWrite()
					return
				case <-time.After(time.Millisecond):
				}
				s.Read(b)
				n, err := c.Write(b)
				f.sent[i].Add(int64(n))
				if err != nil {
					return // its reader tells
				}
			}
		})
		f.wg.Go(func() {
			_, f.failed[i] = readAll(counting{c, &f.got[i]}, newStream(7, byte(1-i)), 0)
		})
	}
	return r, f
}

// counting counts what is read.
type counting struct {
	*net.TCPConn
	n *atomic.Int64
}

func (c counting) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// goesOn waits until each end has got what was sent from now on, and more.
func (f *flowing) goesOn() {
	t := f.r.t
	t.Helper()
	const more = 256 << 10
	var least [2]int64
	for i := range 2 {
		least[i] = f.sent[1-i].Load() + more
	}
	for end := time.Now().Add(time.Minute); f.got[0].Load() < least[0] || f.got[1].Load() < least[1]; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the client got %d bytes of %d, the backend %d of %d:\n%s", f.got[0].Load(), least[0], f.got[1].Load(), least[1], f.r.left())
		}
	}
}

// finish ends the session, and sees that no byte of it is wrong or missing, nor counted
// wrong.
func (f *flowing) finish() accesslog.Record {
	t := f.r.t
	t.Helper()
	close(f.stop)
	f.wg.Wait()
	for i, who := range []string{"client", "backend"} {
		if f.failed[i] != nil {
			t.Errorf("the %s: after %d bytes: %v", who, f.got[i].Load(), f.failed[i])
		}
		if got, sent := f.got[i].Load(), f.sent[1-i].Load(); got != sent {
			t.Errorf("the %s got %d bytes of %d", who, got, sent)
		}
	}
	s := f.r.ended(1)[0]
	const said = 40
	if s.Status != 200 || s.BytesReceived != said+uint64(f.got[1].Load()) || s.BytesSent != said+uint64(f.got[0].Load()) || s.Datapath != f.path {
		t.Errorf("record %+v, of %d and %d bytes more than %d", s, f.got[1].Load(), f.got[0].Load(), said)
	}
	f.r.empty()
	return s
}

// outcome is one of the forward program's counts.
func (r *rig) outcome(name string) uint64 {
	for _, o := range r.outcomes() {
		if o.Name == name {
			return o.Count
		}
	}
	return 0
}
