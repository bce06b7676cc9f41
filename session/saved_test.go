// SPDX-License-Identifier: Apache-2.0

package session

import (
	"net/netip"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"

	"sluice/accesslog"
	"sluice/config"
	"sluice/pool"
)

// TestResume: a session that is saved, written, read and resumed by another registry is
// the one that it was: its record, its places, its number.
func TestResume(t *testing.T) {
	before := newRig(t, config.Listener{IdleTimeout: time.Minute, HalfClose: true}, spec(1), spec(2), spec(3), spec(4), spec(5), spec(6))
	s := before.begin(client)
	s.Server = netip.MustParseAddrPort("198.18.0.9:80")
	before.choose(s)
	for range 5 {
		before.now += int64(time.Millisecond)
		s.Failed(before, BackendFault, "refused", Totals{}, before.now)
	}
	before.now += int64(2 * time.Millisecond)
	s.Reached(before.now)
	s.First = before.now + int64(3*time.Millisecond)
	b, err := cbor.Marshal(s.Save())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes", len(b))
	moved := Totals{FromClient: 7, ToClient: 8, FromBackend: 8, ToBackend: 7}
	s.Leave(before.now)
	if before.reg.Live() != 0 || len(before.records) != 0 || before.source.Load().Counters.Active.Load() != 0 {
		t.Errorf("%d live sessions, %d records", before.reg.Live(), len(before.records))
	}

	var v Saved
	if err := cbor.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	after := newRig(t, config.Listener{MaxConns: 2}, spec(6), spec(7))
	set := after.source.Load()
	p := set.Pool
	r := &Session{}
	after.reg.Update(func() { r.Resume(after.reg, &v, set, p, p.Find(pool.Addr{AddrPort: v.Backend}), moved) })
	if set.Counters.Active.Load() != 1 || after.reg.Live() != 1 {
		t.Errorf("%d sessions are counted", set.Counters.Active.Load())
	}
	next := after.begin(client)
	if next.ID <= r.ID {
		t.Errorf("the next session has the number %d, after %d", next.ID, r.ID)
	}
	if v := after.choose(next); v != Picked {
		t.Errorf("%v: a second session fits", v)
	}
	if v := after.choose(after.begin(client)); v != Limited {
		t.Errorf("%v: a third one doesn't fit", v)
	}
	moved.FromClient, moved.ToBackend = 100, 100
	after.now = before.now + int64(time.Second)
	after.end(r, 200, accesslog.ClientClosed, moved)
	got := after.records[0]
	want := accesslog.Record{
		ID: s.ID, Listener: "l", Pool: "p", Client: accesslog.Peer{AddrPort: client}, Server: accesslog.Peer{AddrPort: s.Server},
		Status: 200, Reason: accesslog.ClientClosed, Datapath: "relay", BytesReceived: 100, BytesSent: 8, UpstreamRetrans: -1,
		Start: got.Start, End: got.End,
	}
	for _, port := range []uint16{2, 3, 4, 5} { // the first one is beyond the last four
		want.Attempts = append(want.Attempts, accesslog.Attempt{Addr: spec(port).Addr.String(), Session: time.Millisecond})
	}
	want.Attempts = append(want.Attempts, accesslog.Attempt{
		Addr: spec(6).Addr.String(), Connected: true, GotByte: true, BytesSent: 100, BytesReceived: 8,
		Connect: 2 * time.Millisecond, FirstByte: 5 * time.Millisecond, Session: time.Second + 2*time.Millisecond,
	})
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	if took := got.End.Sub(got.Start); took != time.Second+7*time.Millisecond {
		t.Errorf("the session took %s", took)
	}
	if n := set.Counters.Received.Load(); n != 93 {
		t.Errorf("%d bytes are counted, want those since it was resumed", n)
	}
}
