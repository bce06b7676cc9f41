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
	"sluice/session"
)

// TestCutForbidden: settings that are to hold for live sessions end those on a
// datapath that they don't allow, and those of clients that they refuse, and no
// others; the ones that stay never get there.
func TestCutForbidden(t *testing.T) {
	datapaths(t, func(t *testing.T, path string) {
		r := newRig(t, path, []string{serve(t, echo)}, nil)
		onIt, young := r.dial(), r.dial()
		defer onIt.Close()
		defer young.Close()
		warm(t, onIt)
		if path != "relay" {
			for end := time.Now().Add(10 * time.Second); r.mapped() == 0; warm(t, onIt) {
				if time.Now().After(end) {
					t.Fatal("the session doesn't enter the map")
				}
			}
		}
		ping := func(c net.Conn) {
			t.Helper()
			b := []byte("x")
			if _, err := c.Write(b); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, b); err != nil {
				t.Fatal(err)
			}
		}
		ping(young)
		now := func(change func(*session.Settings, *config.Listener)) map[string]*session.Settings {
			set, c := *r.settings, *r.settings.Config
			change(&set, &c)
			set.Config = &c
			return map[string]*session.Settings{c.Name: &set}
		}
		r.engine.CutForbidden(map[string]*session.Settings{"another": {Config: defaults()}})
		r.engine.CutForbidden(now(func(*session.Settings, *config.Listener) {}))
		ping(onIt)
		r.engine.CutForbidden(now(func(set *session.Settings, _ *config.Listener) { set.SpliceAllowed, set.OffloadAllowed = false, false }))
		ended := 0
		if path != "relay" {
			if _, err := onIt.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("on a datapath that isn't allowed any more: %v, want a reset", err)
			}
			if s := r.ended(1)[0]; s.Status != 200 || s.Reason != accesslog.Removed {
				t.Errorf("it ended with %d %s", s.Status, s.Reason)
			}
			ended++
		} else {
			ping(onIt)
		}
		warm(t, young)
		ping(young)
		if n := r.mapped(); n != 0 {
			t.Errorf("%d sessions have got to a datapath that isn't allowed any more", n)
		}
		rule := config.Rule{Prefix: clientNet(t)}
		r.engine.CutForbidden(now(func(_ *session.Settings, c *config.Listener) { c.Deny = []config.Rule{rule} }))
		if _, err := young.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a client that is denied now: %v, want a reset", err)
		}
		for _, s := range r.ended(ended + 1) {
			if s.Status != 200 || s.Reason != accesslog.Removed {
				t.Errorf("ended with %d %s", s.Status, s.Reason)
			}
		}
	})
}
