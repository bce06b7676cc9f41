// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"io"
	"testing"
)

func TestPortUse(t *testing.T) {
	var p portUse
	share := func() (own int) { // of 160 dials
		for range 160 {
			if p.own() {
				own++
			}
		}
		return own
	}
	note := func(n int, long bool) {
		for range n {
			p.note(long)
		}
	}
	for _, c := range []struct {
		what        string
		short, long int
		own         int
	}{
		{"at first", 0, 0, 160},
		{"a few short ones", 100, 0, 160},
		{"only short ones", 300, 0, 10},
		{"very many", 100_000, 0, 10},
		{"a long one", 0, 1, 160},
		{"a few short ones after it", 50, 0, 160},
		{"more of them", 100, 0, 10},
		{"only long ones", 0, 10_000, 160},
		{"short ones again", 300, 0, 10},
	} {
		note(c.short, false)
		note(c.long, true)
		if got := share(); got != c.own {
			t.Errorf("%s: %d of 160 dials from ports of ours, want %d", c.what, got, c.own)
		}
	}
	if n := p.short.Load(); n > allShort {
		t.Errorf("a share of %d in %d", n, allShort)
	}
}

// TestShortSessionsLeavePorts: a crowd of short sessions uses few ports of ours, and the
// long ones that follow are forwarded again.
func TestShortSessionsLeavePorts(t *testing.T) {
	t.Parallel()
	t.Run("without the rule", func(t *testing.T) {
		onDatapath(t, "offload", func(t *testing.T, path string) {
			r := newRig(t, path, []string{serve(t, echo)}, nil)
			r.breakOffload(offloadFault{everyPort: true})
			const crowd = 400
			for range crowd {
				c := r.dial()
				exchange(t, c)
				c.Close()
			}
			r.ended(crowd)
			if n := r.engine.offload.Load().Ports.(*countedPorts).all.Load(); n < crowd {
				t.Errorf("%d ports of ours taken for %d short sessions", n, crowd)
			}
		})
	})
	onDatapath(t, "offload", func(t *testing.T, path string) {
		r := newRig(t, path, []string{serve(t, echo)}, nil)
		ports := r.engine.offload.Load().Ports.(*countedPorts)
		session := func(messages int) {
			t.Helper()
			c := r.dial()
			defer c.Close()
			for range messages {
				b := []byte{1}
				if _, err := c.Write(b); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(c, b); err != nil {
					t.Fatal(err)
				}
			}
		}
		const crowd = 400
		for range crowd {
			session(1)
		}
		r.ended(crowd)
		before := ports.all.Load()
		for range crowd {
			session(1)
		}
		r.ended(2 * crowd)
		if n := ports.all.Load() - before; n < crowd/usedAnyway || n > crowd/8 {
			t.Errorf("%d ports of ours taken for %d short sessions", n, crowd)
		}
		const long = 5
		for range 1 + long { // the first one tells that there are long ones
			session(40)
		}
		for _, s := range r.ended(2*crowd + 1 + long)[2*crowd+1:] {
			if s.Datapath != path {
				t.Errorf("datapath %s, fallbacks %v", s.Datapath, r.settings.Counters.Snapshot().Fallbacks)
			}
		}
	})
}
