// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"sluice/accesslog"
	"sluice/config"
	"sluice/loader"
	"sluice/session"
)

// A header is taken out of the client's socket before the session's bytes, and
// is none of them: the client's end of stream is passed on all the same.
func TestHeaderThenMap(t *testing.T) {
	datapaths(t, func(t *testing.T, path string) {
		r := newRig(t, path, []string{serve(t, echo)}, func(c *config.Listener) { c.ProxyAccept = true })
		c := r.dial()
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(c, "PROXY TCP4 198.51.100.7 192.0.2.1 4711 80\r\n")
		warm(t, c)
		if path != "relay" {
			r.moved()
		}
		c.CloseWrite()
		if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
			t.Fatalf("%d bytes more, %v; sessions:\n%s", len(b), err, r.left())
		}
		expect(t, r.ended(1)[0], 200, accesslog.ClientClosed, warmBytes, warmBytes)
	})
}

// A flow's number is its sockets' until they are closed, however long the end of
// a session takes before that: whoever got it in between would take their places
// in the map over.
func TestFlowNumberRestsUntilClosed(t *testing.T) {
	needSplice(t)
	splice, err := loader.NewSplice(loader.SpliceOptions{MaxFlows: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer splice.Close()
	ending, goOn := make(chan struct{}), make(chan struct{})
	var first sync.Once
	var paths sync.Map // by client
	r := newRigOf(t, "splice", []string{serve(t, echo)}, nil, Options{Loops: 2, Splice: splice, Sessions: session.NewRegistry(session.Options{Record: func(s *accesslog.Record, _ bool) {
		paths.Store(s.Client.AddrPort.String(), s.Datapath)
		first.Do(func() { close(ending); <-goOn })
	}})})
	path := func(c net.Conn) any {
		for range 1000 {
			if p, ok := paths.Load(c.LocalAddr().String()); ok {
				return p
			}
			time.Sleep(10 * time.Millisecond)
		}
		return nil
	}
	// session plays one; false if its loop is the one that is held.
	session := func() (net.Conn, bool) {
		c := r.dial()
		c.SetDeadline(time.Now().Add(500 * time.Millisecond))
		c.Write([]byte("?"))
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			return c, false
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		warm(t, c)
		return c, true
	}
	a, _ := session()
	r.moved()
	a.Close()
	<-ending                           // all but closed
	time.Sleep(200 * time.Millisecond) // twice what a number that was given back rests
	b, served := session()
	for ; !served; b, served = session() {
		defer b.Close()
	}
	b.Close()
	if p := path(b); p != "relay" {
		t.Errorf("a session that came while the first one's sockets were open: %v", p)
	}
	close(goOn)
	if p := path(a); p != "splice" {
		t.Errorf("the first session: %v", p)
	}
	time.Sleep(200 * time.Millisecond)
	c, _ := session()
	c.Close()
	if p := path(c); p != "splice" {
		t.Errorf("a session after the number had its rest: %v", p)
	}
}
