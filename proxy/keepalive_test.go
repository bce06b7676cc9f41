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

// vanished is a session of which one end is gone without a word.
type vanished struct {
	name   string
	rig    *rig
	other  net.Conn // that of the two which stays
	at     time.Time
	least  time.Duration // that the session stays
	finish func()
}

// A peer that is gone without a word: nothing that it is sent is acknowledged.
// keepalive finds it when nobody speaks, dead_peer when it is spoken to, each
// after its own time, also where both are set.
func TestDeadPeer(t *testing.T) {
	datapathsAtOnce(t, func(t *testing.T, path string) {
		var all []*vanished
		for _, dead := range []string{"client", "backend"} {
			if testing.Short() && dead == "backend" {
				continue
			}
			for _, c := range []struct {
				name                string
				keepalive, deadPeer time.Duration
				spoken              bool // to the dead one
				least               time.Duration
			}{
				{"keepalive", time.Second, 0, false, 2800 * time.Millisecond},
				{"keepalive before dead_peer", time.Second, 10 * time.Minute, false, 2800 * time.Millisecond},
				{"keepalive after dead_peer", 4 * time.Second, 500 * time.Millisecond, false, 5300 * time.Millisecond},
				{"dead_peer", 0, time.Second, true, 900 * time.Millisecond},
				{"dead_peer before keepalive", time.Hour, time.Second, true, 900 * time.Millisecond},
				{"dead_peer after keepalive", time.Second, 6 * time.Second, true, 5500 * time.Millisecond},
			} {
				v := vanish(t, path, dead, func(l *config.Listener) { l.Keepalive, l.DeadPeer = c.keepalive, c.deadPeer }, c.spoken)
				v.name, v.least = dead+" "+c.name, c.least
				all = append(all, v)
			}
		}
		for _, v := range all {
			s := v.rig.ended(1)[0]
			if s.Status != 200 || s.Reason != accesslog.DeadPeer {
				t.Errorf("%s: record %d %s", v.name, s.Status, s.Reason)
			}
			if d := v.rig.when[0].Sub(v.at); d < v.least {
				t.Errorf("%s: given up after %v", v.name, d)
			}
			v.other.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := v.other.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%s: the other end sees %v, not a reset", v.name, err)
			}
			v.finish()
		}
	})
}

// vanish has one end of a session hear nothing any more, and the other say
// something if it is spoken to.
func vanish(t *testing.T, path, dead string, change func(*config.Listener), spoken bool) *vanished {
	backend, done := make(chan net.Conn, 1), make(chan struct{})
	v := &vanished{}
	v.rig = newRigOf(t, path, []string{serve(t, func(c net.Conn) {
		io.CopyN(c, struct{ io.Reader }{c}, warmBytes)
		backend <- c
		<-done
	})}, change, Options{Loops: 1})
	client := v.rig.dial()
	v.finish = func() { close(done); client.Close() }
	warm(t, client)
	gone := net.Conn(client)
	v.other = <-backend
	if dead == "backend" {
		gone, v.other = v.other, gone
	}
	lose(t, gone.(*net.TCPConn), 100)
	v.at = time.Now()
	if spoken {
		v.other.Write([]byte("anybody?"))
	}
	return v
}

// Who answers is not dead, however little it says, with the shortest times.
func TestLivePeer(t *testing.T) {
	datapathsAtOnce(t, func(t *testing.T, path string) {
		r := newRig(t, path, []string{serve(t, echo)}, func(l *config.Listener) { l.Keepalive, l.DeadPeer = time.Second, 200*time.Millisecond })
		c := r.dial()
		defer c.Close()
		warm(t, c)
		for _, silence := range []time.Duration{3500 * time.Millisecond, 6500 * time.Millisecond} {
			time.Sleep(silence)
			warm(t, c)
		}
		c.Close()
		expect(t, r.ended(1)[0], 200, accesslog.ClientClosed, 3*warmBytes, 3*warmBytes)
		r.empty()
		for _, l := range r.engine.loops {
			l.call(func() {
				if l.watched != 0 {
					t.Errorf("%d sessions watched after the end", l.watched)
				}
			})
		}
	})
}

// As TCP_USER_TIMEOUT means it, a reader that lives and takes nothing is dead. Of a
// forwarded session the sender's own stack knows that: nothing is sent that isn't
// acknowledged.
func TestDeadPeerTakesNothing(t *testing.T) {
	t.Parallel()
	withSockets(t, func(t *testing.T, path string) {
		r := newRig(t, path, []string{serve(t, func(c net.Conn) {
			io.CopyN(c, struct{ io.Reader }{c}, warmBytes)
			for b := make([]byte, 32<<10); ; {
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		})}, func(l *config.Listener) { l.DeadPeer = time.Second })
		c := r.dial()
		defer c.Close()
		warm(t, c)
		if s := r.ended(1)[0]; s.Status != 200 || s.Reason != accesslog.DeadPeer {
			t.Errorf("record %d %s", s.Status, s.Reason)
		}
	})
}
