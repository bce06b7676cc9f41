// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"sluice/bench/contender"
	"sluice/bench/result"
)

func TestCuts(t *testing.T) {
	isOffload := func(s contender.Session) bool { return s.Datapath == "offload" }
	session := func(datapath string, all, moved uint64) contender.Session {
		return contender.Session{Datapath: datapath, Sent: all / 2, Received: all / 2, Moved: moved}
	}
	for name, c := range map[string]struct {
		list []contender.Session
		want result.Cuts
	}{
		"no session": {nil, result.Cuts{}},
		"none cut":   {[]contender.Session{session("relay", 100, 0), session("splice", 100, 90)}, result.Cuts{Sessions: 2}},
		"three of four": {[]contender.Session{session("offload", 1000, 900), session("relay", 100, 0), session("offload", 1000, 100), session("offload", 1000, 800)},
			result.Cuts{Sessions: 4, Cut: 3, Median: 200, Most: 900}},
	} {
		c.want.Exchange = 128
		got := cuts(c.list, isOffload, 128)
		if got.Sessions != c.want.Sessions || got.Cut != c.want.Cut || got.Median != c.want.Median || got.Most != c.want.Most || got.Exchange != 128 {
			t.Errorf("%s: %+v, want %+v", name, *got, c.want)
		}
	}
}

// A contender with a log tells what became of its sessions, once they have all
// ended. Here it is relay's: all that it moves passes the process.
func TestSampleHasWhatTheLogSays(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	program := filepath.Join(t.TempDir(), "sluice")
	if err := contender.Build(t.Context(), filepath.Join("..", ".."), program); err != nil {
		t.Fatal(err)
	}
	logged := contender.Sluice("sluice-relay", program, "relay")
	logged.Log = true
	b, err := NewBed(t.Context(), BedKind{Backends: 2}, []*contender.Contender{logged}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, name := range []string{"pingpong", "session20"} {
		list, err := Select([]string{name})
		if err != nil {
			t.Fatal(err)
		}
		s, err := b.Entries[0].take(t.Context(), list[0], 200*time.Millisecond)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		c := s.Cuts
		if c == nil || c.Sessions == 0 || c.Cut != c.Sessions || len(s.Marks) > 0 && name == "pingpong" {
			t.Fatalf("%s: %+v, marks %q", name, c, s.Marks)
		}
		if name == "pingpong" && (c.Sessions != 1 || c.Median < 2*messageSize) {
			t.Errorf("%s: %+v", name, c)
		}
		if name == "session20" && c.Median != sessionMessages*2*messageSize {
			t.Errorf("%s: a session moved %g bytes, want %d", name, c.Median, sessionMessages*2*messageSize)
		}
	}
}
