// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"sluice/accesslog"
	"sluice/config"
	"sluice/session"
)

func TestExpiry(t *testing.T) {
	const s = int64(time.Second)
	for _, c := range []struct {
		name      string
		idle, age time.Duration
		last      int64 // after the accept
		at        int64 // likewise; 0: never
		reason    accesslog.EndReason
	}{
		{"neither", 0, 0, 5 * s, 0, ""},
		{"idle", 10 * time.Second, 0, 5 * s, 15 * s, accesslog.IdleTimeout},
		{"young and silent", 0, 20 * time.Second, 5 * s, 20 * s, accesslog.MaxAge},
		{"silent for less than a second when it comes of age", 0, 20 * time.Second, 19*s + s/2, 20*s + s/2, accesslog.MaxAge},
		{"old and busy", 0, 20 * time.Second, 30 * s, 31 * s, accesslog.MaxAge},
		{"twice as old", 0, 20 * time.Second, 39*s + s/2, 40 * s, accesslog.MaxAge},
		{"idle first", 10 * time.Second, 20 * time.Second, 5 * s, 15 * s, accesslog.IdleTimeout},
		{"age first", 10 * time.Second, 20 * time.Second, 15 * s, 20 * s, accesslog.MaxAge},
		{"less than a second of idleness", time.Second / 2, 20 * time.Second, 30 * s, 30*s + s/2, accesslog.IdleTimeout},
	} {
		const begun = 1000 * s
		conf := defaults()
		conf.IdleTimeout, conf.MaxAge = c.idle, c.age
		ses := &pair{}
		ses.Begin(session.NewRegistry(session.Options{}), netip.MustParseAddrPort("127.0.0.1:1"), begun)
		ses.Settings = &session.Settings{Config: conf}
		at, reason := ses.expiry(begun + c.last)
		if at != 0 {
			at -= begun
		}
		if at != c.at || reason != c.reason {
			t.Errorf("%s: at %v %q, want %v %q", c.name, time.Duration(at), reason, time.Duration(c.at), c.reason)
		}
	}
}

// An old session ends in its first quiet second, cleanly; one that has none is
// reset at twice the age, for it is in the middle of something.
func TestMaxAge(t *testing.T) {
	const age = 4 * time.Second // the client talks for less, also on a machine with much else to do
	datapathsAtOnce(t, func(t *testing.T, path string) {
		for _, busy := range []bool{false, true} {
			name, want := "quiet", endOfOurs(path)
			if busy {
				name, want = "busy", syscall.ECONNRESET
			}
			t.Run(name, func(t *testing.T) {
				r := newRig(t, path, []string{serve(t, echo)}, func(c *config.Listener) { c.MaxAge, c.IdleTimeout = age, 0 })
				start := time.Now()
				c := r.dial()
				defer c.Close()
				warm(t, c)
				b := make([]byte, 1)
				var err error
				for busy && err == nil {
					time.Sleep(50 * time.Millisecond)
					if _, err = c.Write(b); err == nil {
						_, err = io.ReadFull(c, b)
					}
				}
				if !busy {
					_, err = c.Read(b)
				}
				if !errors.Is(err, want) {
					t.Errorf("the client sees %v, want %v", err, want)
				}
				least := age
				if busy {
					least = 2 * age
				}
				if d := time.Since(start); d < least {
					t.Errorf("ended after %v", d)
				}
				if s := r.ended(1)[0]; s.Status != 200 || s.Reason != accesslog.MaxAge || s.Datapath != path {
					t.Errorf("record %d %s %s", s.Status, s.Reason, s.Datapath)
				}
				r.empty()
			})
		}
	})
}

// A reader that stalls until the session's time is over sees a reset: what was
// taken for it and never reached it can't look like the whole.
func TestStalledIsReset(t *testing.T) {
	datapathsAtOnce(t, func(t *testing.T, path string) {
		r := newRig(t, path, []string{serve(t, func(c net.Conn) {
			io.CopyN(c, struct{ io.Reader }{c}, warmBytes)
			for b := make([]byte, 32<<10); ; {
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		})}, func(c *config.Listener) { c.IdleTimeout = 2 * time.Second })
		c := r.dial()
		defer c.Close()
		warm(t, c)
		s := r.ended(1)[0]
		if s.Reason != accesslog.IdleTimeout {
			t.Errorf("record %+v", s)
		}
		if n, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client read %d bytes and saw %v, not a reset", n, err)
		}
	})
}
