// SPDX-License-Identifier: Apache-2.0

package contender

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestReadSessions(t *testing.T) {
	const old = `{"datapath":"relay","sent":1,"received":1,"moved":0}` + "\n"
	offload := `{"datapath":"offload","sent":100,"received":50,"moved":30}` + "\n"
	for name, c := range map[string]struct {
		text string
		want []Session
		bad  bool
	}{
		"nothing new":       {"", nil, false},
		"two":               {offload + old, []Session{{"offload", 100, 50, 30}, {"relay", 1, 1, 0}}, false},
		"one and a half":    {offload + offload[:20], []Session{{"offload", 100, 50, 30}}, false},
		"half":              {offload[:20], nil, false},
		"something else":    {"127.0.0.1 - -\n", nil, true},
		"a negative figure": {`{"sent":-1}` + "\n", nil, true},
	} {
		path := filepath.Join(t.TempDir(), "access.log")
		if err := os.WriteFile(path, []byte(old+c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readSessions(path, int64(len(old)))
		if c.bad != (err != nil) || !slices.Equal(got, c.want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if _, err := readSessions(filepath.Join(t.TempDir(), "none"), 0); err == nil {
		t.Error("a log that isn't there has sessions")
	}
}

func TestEarlyIsWhatPassedTheProcess(t *testing.T) {
	for _, c := range []struct {
		s    Session
		want uint64
	}{{Session{Sent: 100, Received: 50, Moved: 30}, 120}, {Session{Sent: 1, Received: 1, Moved: 2}, 0}, {Session{Moved: 1}, 0}} {
		if got := c.s.Early(); got != c.want {
			t.Errorf("%+v: %d, want %d", c.s, got, c.want)
		}
	}
}

func TestSessionsLeft(t *testing.T) {
	const text = `{"access_log":{"lines":%d},"listeners":[{"total":3,"fallbacks":{"busy":1}},{"total":4,"fallbacks":{"busy":2,"ports":1}}]}`
	for lines, want := range map[int]int{5: 2, 7: 0, 9: 0} {
		var s sluiceStats
		if err := json.Unmarshal(fmt.Appendf(nil, text, lines), &s); err != nil {
			t.Fatal(err)
		}
		if got := s.left(); got != want {
			t.Errorf("%d lines: %d left, want %d", lines, got, want)
		}
		if f := s.fallbacks(); f["busy"] != 3 || f["ports"] != 1 || len(f) != 2 {
			t.Errorf("fallbacks: %v", f)
		}
	}
}
