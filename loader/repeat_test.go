// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"testing"

	"golang.org/x/sys/unix"
)

func newForger(t *testing.T, fd int) *forger {
	t.Helper()
	f := &forger{fd: fd}
	must(t, 0, f.open())
	t.Cleanup(f.close)
	return f
}

// Repeated bytes don't reach userspace either, in the middle of an episode or
// at the start of one.
func TestRepeatedBytesArePassedOnce(t *testing.T) {
	needSplice(t)
	withRig(t, SpliceOptions{MaxFlows: 4}, func(t *testing.T, r *rig) {
		data := pattern(1000)
		must(t, 0, r.add())
		must(t, 0, r.move(r.client, r.server, data[:400]))
		f := newForger(t, r.client)
		up := r.direction(0)
		up.SetHold(true)
		for _, to := range []int{500, 501, 1000} {
			had := 400 + f.sent
			must(t, 0, f.send(data[100:to], had-100, tcpPSH))
			f.sent = to - 400
			got := must1(t, func() ([]byte, error) { return r.receive(r.front, to-had) })
			must(t, 0, same(got, data[had:to]))
		}
		if r.ready(r.front, unix.POLLIN, settle) != 0 {
			t.Error("more than was sent can be read")
		}
		if up.Redirected() != 400 || up.Passed() != 600 || r.s.Counts().Trimmed != 3 {
			t.Errorf("%d redirected, %d passed, %+v", up.Redirected(), up.Passed(), r.s.Counts())
		}
	})
}

// What userspace had read before the socket was added isn't moved again.
func TestRepeatedBytesFromBeforeAdding(t *testing.T) {
	needSplice(t)
	withRig(t, SpliceOptions{MaxFlows: 4}, func(t *testing.T, r *rig) {
		data := pattern(300)
		must(t, 0, r.move(r.client, r.front, data[:100]))
		f := newForger(t, r.client)
		must(t, 0, f.send(data[20:200], 80, tcpPSH))
		f.sent = 100
		must(t, 0, r.wait(r.front, unix.POLLIN))
		must(t, 0, r.add())
		must(t, 0, f.send(data[:300], 200, tcpPSH))
		got := must1(t, func() ([]byte, error) { return r.receive(r.server, 200) })
		must(t, 0, same(got, data[100:]))
		if h := r.direction(0); h.Redirected() != 200 {
			t.Errorf("%d redirected", h.Redirected())
		}
	})
}

// Bytes that can't be trimmed are lost for good: the record says so, userspace
// is told, and nothing follows them.
func TestWhatCantBeTrimmed(t *testing.T) {
	needSplice(t)
	inNamespace(t, func(t *testing.T) {
		s := must1(t, func() (*Splice, error) { return newSplice(SpliceOptions{MaxFlows: 4}, rules{cantTrim: true}) })
		defer s.Close()
		_, err := runStep(t.Context(), s, step{run: func(r *rig) (string, error) {
			data := pattern(200)
			must(t, 0, r.add())
			must(t, 0, r.move(r.client, r.server, data[:100]))
			f := newForger(t, r.client)
			must(t, 0, f.send(data[50:150], 50, tcpPSH))
			must(t, 0, r.heard(2*r.flow))
			f.sent = 50
			must(t, 0, f.send(data[150:], 0, tcpPSH))
			if r.ready(r.server, unix.POLLIN, settle) != 0 {
				t.Error("bytes follow those that are lost")
			}
			if !r.direction(0).Broken() || r.direction(1).Broken() || s.Counts().OrderLost != 1 {
				t.Errorf("broken: %v, %v; %+v", r.direction(0).Broken(), r.direction(1).Broken(), s.Counts())
			}
			return "", nil
		}})
		must(t, 0, err)
	})
}
