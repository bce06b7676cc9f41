// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"slices"
	"testing"

	"sluice/pool"
	"sluice/session"
	"sluice/stats"
)

// fakeCarrier notes what it is asked.
type fakeCarrier struct {
	asked []string
	ids   []uint64 // of its sessions, newest first
	fails error
}

func (f *fakeCarrier) Flush()              { f.asked = append(f.asked, "flush") }
func (f *fakeCarrier) Cut([]*pool.Backend) { f.asked = append(f.asked, "cut") }
func (f *fakeCarrier) CutForbidden(map[string]*session.Settings) {
	f.asked = append(f.asked, "forbidden")
}
func (f *fakeCarrier) Drain() {}

func (f *fakeCarrier) ResetAll()    { f.asked = append(f.asked, "reset") }
func (f *fakeCarrier) Close() error { f.asked = append(f.asked, "close"); return f.fails }

func (f *fakeCarrier) Flows(limit int, _ stats.FlowOrder) (list []session.Flow) {
	for _, id := range f.ids[:min(limit, len(f.ids))] {
		list = append(list, session.Flow{ID: id})
	}
	return list
}

// TestCarriers: each one is asked, also behind one that fails, and their
// sessions are one list.
func TestCarriers(t *testing.T) {
	bad := errors.New("stuck")
	a, b := &fakeCarrier{ids: []uint64{9, 4, 1}, fails: bad}, &fakeCarrier{ids: []uint64{7, 5}}
	all := carriers{a, b}
	all.Flush()
	all.Cut(nil) // nothing to cut: nobody is held up
	all.Cut([]*pool.Backend{{}})
	all.CutForbidden(nil)
	all.CutForbidden(map[string]*session.Settings{"l": {}})
	all.ResetAll()
	if err := all.Close(); !errors.Is(err, bad) {
		t.Errorf("closing says %v", err)
	}
	for _, f := range []*fakeCarrier{a, b} {
		if want := []string{"flush", "cut", "forbidden", "reset", "close"}; !slices.Equal(f.asked, want) {
			t.Errorf("asked %v, want %v", f.asked, want)
		}
	}
	var got []uint64
	for _, f := range all.Flows(4, stats.NewestFirst) {
		got = append(got, f.ID)
	}
	if want := []uint64{9, 7, 5, 4}; !slices.Equal(got, want) {
		t.Errorf("sessions %v, want %v", got, want)
	}
}
