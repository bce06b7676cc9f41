// SPDX-License-Identifier: Apache-2.0

package proxy

import "testing"

// Each phase and what each change makes of it; -1: it doesn't apply.
func TestPhases(t *testing.T) {
	const no = -1
	for _, c := range []struct {
		name                                                     string
		p                                                        phase
		passed, drained, handedBack, leftOut, finCame, finPassed int
		ours, takenOver, outside, ending                         bool
	}{
		{"redirecting", redirecting, int(draining), no, no, int(unmapped), int(lastRedirecting), no, false, false, false, false},
		{"draining", draining, no, int(passing), no, no, int(lastDraining), no, true, true, false, false},
		{"passing", passing, no, no, int(redirecting), no, int(lastPassing), no, true, true, false, false},
		{"unmapped", unmapped, no, no, no, no, int(lastUnmapped), no, true, false, true, false},
		{"last redirecting", lastRedirecting, int(lastDraining), no, no, no, no, int(over), false, false, false, true},
		{"last draining", lastDraining, no, int(lastPassing), no, no, no, no, true, true, false, true},
		{"last passing", lastPassing, no, no, no, no, no, int(over), true, true, false, true},
		{"last unmapped", lastUnmapped, no, no, no, no, no, int(over), true, false, true, true},
		{"over", over, no, no, no, no, no, no, false, false, false, false},
	} {
		for change, want := range map[change]int{
			bytesPassed: c.passed, bytesDrained: c.drained, handedBack: c.handedBack,
			leftOut: c.leftOut, finCame: c.finCame, finPassed: c.finPassed,
		} {
			if want == no {
				want = int(c.p)
			}
			if got := c.p.after(change); got != phase(want) {
				t.Errorf("%s after change %d: phase %d, want %d", c.name, change, got, want)
			}
		}
		if c.p.ours() != c.ours || c.p.takenOver() != c.takenOver || c.p.outside() != c.outside || c.p.ending() != c.ending {
			t.Errorf("%s: ours %t, taken over %t, outside %t, ending %t", c.name, c.p.ours(), c.p.takenOver(), c.p.outside(), c.p.ending())
		}
	}
}

// However a direction comes to its end, no FIN goes before bytes that wait: not
// while any are redirected and not yet in the target.
func TestNoEndWhileDraining(t *testing.T) {
	seen := map[phase]bool{redirecting: true}
	for todo := []phase{redirecting}; len(todo) > 0; {
		p := todo[0]
		todo = todo[1:]
		for c := bytesPassed; c <= finPassed; c++ {
			next := p.after(c)
			if next == over && p != over && (c != finPassed || p == draining || p == lastDraining || !p.ending()) {
				t.Errorf("phase %d is over after change %d", p, c)
			}
			if !seen[next] {
				seen[next] = true
				todo = append(todo, next)
			}
		}
	}
	if len(seen) != int(over)+1 {
		t.Errorf("%d of %d phases can be reached", len(seen), over+1)
	}
}
