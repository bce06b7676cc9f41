// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"net"
	"path/filepath"
	"testing"

	"sluice/config"
	"sluice/stats"
)

// TestFallbacks: a session that would have been spliced and can't be is counted
// once, with its reason, which /flows shows too; one that ends before is not.
func TestFallbacks(t *testing.T) {
	needSplice(t)
	echoes := func(c net.Conn) { echo(c) }
	socket := filepath.Join(t.TempDir(), "backend")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go echoes(c)
		}
	}()
	for _, c := range []struct {
		want     string
		backend  string
		change   func(*config.Listener)
		sessions int
	}{
		{"unix", "unix:" + socket, nil, 1},
		{"rate", serve(t, echoes), func(l *config.Listener) { l.UploadRate = 1 << 40 }, 1},
		{"", serve(t, echoes), nil, 1},
		{"map_full", serve(t, echoes), nil, 1025}, // the rig's map has room for 1024
	} {
		t.Run(c.want, func(t *testing.T) {
			r := newRig(t, "splice", []string{c.backend}, c.change)
			short := r.dial()
			if _, err := short.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			short.Close()
			var last net.Conn
			for range c.sessions {
				s := r.dial()
				defer s.Close()
				warm(t, s)
				warm(t, s)
				last = s
			}
			want := map[string]uint64{}
			if c.want != "" {
				want[c.want] = 1
			}
			if got := r.settings.Counters.Snapshot().Fallbacks; fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("fallbacks %v, want %v", got, want)
			}
			for _, f := range r.engine.Flows(stats.MaxFlows, stats.NewestFirst) {
				d := f.Describe(r.engine.clock.Now())
				if d.Client == last.LocalAddr().String() && d.Reason != c.want {
					t.Errorf("reason %q, want %q", d.Reason, c.want)
				}
			}
		})
	}
}
