// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/accesslog"
	"sluice/internal/netrig"
)

const (
	// wrapSpan is how far from 2^32 numbers begin that are to wrap.
	wrapSpan = 16 << 20
	// wrapBytes are sent each way, so that every one of them does.
	wrapBytes = wrapSpan + 1<<20
	// wrapLeast is more than is sent before the session is forwarded.
	wrapLeast = 64 << 10
)

// wrapsSoon says whether a sequence number is about to wrap.
func wrapsSoon(n uint32) bool { return -n >= wrapLeast && -n < wrapSpan }

// numbersOf are the next sequence numbers of a connection: those of its own bytes and of
// its peer's.
func numbersOf(c *net.TCPConn) (own, peers uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	ctl := raw.Control(func(fd uintptr) {
		const recvQueue, sendQueue, offWithoutProbe = 1, 2, -1 // linux/tcp.h
		number := func(queue int) (n int) {
			if err == nil {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, queue)
			}
			if err == nil {
				n, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
			}
			return n
		}
		if err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, 1); err != nil {
			return
		}
		own, peers = uint32(number(sendQueue)), uint32(number(recvQueue))
		if off := unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, offWithoutProbe); err == nil {
			err = off
		}
	})
	if err == nil {
		err = ctl
	}
	return own, peers, err
}

// startAt has the numbers of a connection that isn't made yet begin there.
func startAt(c syscall.RawConn, seq uint32) (err error) {
	ctl := c.Control(func(fd uintptr) {
		const sendQueue, off = 2, -1
		for _, o := range [][2]int{{unix.TCP_REPAIR, 1}, {unix.TCP_REPAIR_QUEUE, sendQueue}, {unix.TCP_QUEUE_SEQ, int(int32(seq))}, {unix.TCP_REPAIR, off}} {
			if err == nil {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, o[0], o[1])
			}
		}
	})
	if err == nil {
		err = ctl
	}
	return err
}

// TestNumbersWrap: the sequence numbers of each of the four spaces, the client's, the
// backend's and ours toward both, wrap while the session is forwarded and bytes flow both
// ways. The client's can be set; of the others connections are made until some are near.
func TestNumbersWrap(t *testing.T) {
	onPaths(t, netrig.Options{}, func(t *testing.T, path string, h *hosts) {
		spaces := []string{"the client's", "ours toward the client", "ours toward the backend", "the backend's"}
		if path != "offload" {
			spaces = spaces[:1] // nobody but the stacks counts there
		}
		for _, space := range spaces {
			t.Run(space, func(t *testing.T) { numbersWrap(t, path, h, space) })
		}
	})
}

func numbersWrap(t *testing.T, path string, h *hosts, space string) {
	isNear := func(c *net.TCPConn) (bool, error) {
		own, peers, err := numbersOf(c)
		switch space {
		case "the client's", "the backend's":
			return wrapsSoon(own), err
		}
		return wrapsSoon(peers), err
	}
	failed := make(chan error, 1)
	r := newRig(t, path, []string{serve(t, func(conn net.Conn) {
		c := conn.(*net.TCPConn)
		c.SetDeadline(time.Now().Add(patience))
		answer := []byte{1}
		if space == "ours toward the backend" || space == "the backend's" {
			if near, err := isNear(c); err != nil || !near {
				answer[0] = 0
			}
		}
		asked := make([]byte, 1)
		if _, err := c.Read(asked); err != nil {
			return
		}
		c.Write(answer)
		if answer[0] == 0 || asked[0] == 0 {
			echo(c)
			return
		}
		if _, err := io.CopyN(c, struct{ io.Reader }{c}, warmBytes); err == nil { // else it wasn't what the client looks for
			failed <- bothWays(c, 'd', 'u')
		}
	})}, nil)
	before, tries := 0, 0
	for ; ; tries++ {
		if tries == 20*(1<<32/wrapSpan) {
			t.Fatal("no connection's numbers are near their end")
		}
		c, err := dialAt(h, r, space)
		must(t, err)
		near := true
		if space == "the client's" || space == "ours toward the client" {
			near, err = isNear(c)
			must(t, err)
		}
		if b := []byte{0}; near || tries%50 == 0 { // a long one: else those that follow are taken for short ones
			if near {
				b[0] = 1
			}
			_, err := c.Write(b)
			must(t, err)
			_, err = io.ReadFull(c, b)
			must(t, err)
			if near = near && b[0] == 1; !near && tries%50 == 0 {
				warm(t, c)
			}
		}
		if !near {
			c.SetLinger(0) // no TIME_WAIT of each
			c.Close()
			continue
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		warm(t, c)
		if path != "relay" {
			r.moved()
		}
		if near, err := isNearAtClient(c, space); err != nil || !near {
			t.Errorf("the numbers have wrapped before, %v", err)
		}
		err = bothWays(c, 'u', 'd')
		must(t, err, <-failed)
		before = tries
		break
	}
	all := r.ended(before + 1)
	s := all[len(all)-1]
	for _, each := range all {
		if each.BytesReceived > s.BytesReceived {
			s = each
		}
	}
	if s.Datapath != path || s.Status != 200 || s.Reason != accesslog.ClientClosed && s.Reason != accesslog.BackendClosed || s.BytesReceived != 1+warmBytes+wrapBytes || s.BytesSent != 1+warmBytes+wrapBytes {
		t.Errorf("record %+v", s)
	}
	r.empty()
	t.Logf("after %d tries", tries)
}

// isNearAtClient says whether the client's own space, if it is about that, has yet to wrap.
func isNearAtClient(c *net.TCPConn, space string) (bool, error) {
	own, peers, err := numbersOf(c)
	switch space {
	case "the client's":
		return own > 1<<31, err
	case "ours toward the client":
		return peers > 1<<31, err
	}
	return true, err
}

// dialAt connects to the front, with the client's numbers near their end if it is about
// them.
func dialAt(h *hosts, r *rig, space string) (c *net.TCPConn, err error) {
	if space != "the client's" {
		return r.connect()
	}
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error { return startAt(c, 1<<32-wrapSpan/2) }}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err = h.Client.Do(func() error {
		any, err := d.DialContext(ctx, "tcp", r.front.Addr().String())
		if err == nil {
			c = any.(*net.TCPConn)
		}
		return err
	})
	return c, err
}

// bothWays sends a stream, ends it, and checks the other's.
func bothWays(c *net.TCPConn, own, others byte) error {
	var wg sync.WaitGroup
	var sent error
	wg.Go(func() { sent = sendAll(c, newStream(11, own), wrapBytes, 64<<10, 0, false) })
	n, err := readAll(c, newStream(11, others), 0)
	wg.Wait()
	if err == nil && n != wrapBytes {
		err = fmt.Errorf("%d bytes and a clean end", n)
	}
	if err == nil {
		err = sent
	}
	return err
}
