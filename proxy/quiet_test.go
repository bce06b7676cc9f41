// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"testing"

	"sluice/accesslog"
)

// TestLostWhileHushed: a connection that breaks while it isn't read, for a quiet moment,
// ends its session, and its loop goes on.
func TestLostWhileHushed(t *testing.T) {
	r := newRig(t, "relay", []string{serve(t, echo)}, nil)
	c := r.dial()
	defer c.Close()
	warm(t, c)
	s := r.session()
	done := make(chan struct{})
	go s.loop.call(func() {
		defer close(done)
		s.cli.hushed, s.cli.readable, s.cli.broken = true, true, true
		s.pumpBoth()
	})
	if rec := r.ended(1)[0]; rec.Reason != accesslog.ClientReset || rec.BytesReceived != warmBytes {
		t.Errorf("%s after %d bytes", rec.Reason, rec.BytesReceived)
	}
	<-done
	r.empty()
}
