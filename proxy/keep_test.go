// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/accesslog"
	"sluice/config"
	"sluice/loader"
	"sluice/session"
)

func someKept(names int) *kept {
	name := strings.Repeat("n", names)
	return &kept{
		Session: session.Saved{
			ID: 7, Listener: name, Pool: name, Backend: netip.MustParseAddrPort("[fd00::1]:80"), Client: netip.MustParseAddrPort("198.18.0.1:4000"),
			Begun: 1 << 60, Tried: 1 << 60, Took: 1 << 40, First: 1 << 60, Named: true, IdleTimeout: 1 << 50, AccessLog: config.LogNonempty,
		},
		FromClient: 1 << 63, ToClient: 1 << 63, FromBackend: 1 << 63, ToBackend: 1 << 63, Last: 1 << 60, LetGo: true, Retrans: -1,
	}
}

// TestKept: what is saved fits with the longest names and addresses, whatever attempts
// there were, and is read with the zeros that follow it.
func TestKept(t *testing.T) {
	for _, names := range []int{1, 255} {
		k := someKept(names)
		for range 4 {
			k.Session.Add(accesslog.Attempt{Addr: "unix:" + strings.Repeat("p", 107), Session: 1 << 60})
		}
		before := len(k.Session.Failed)
		b, err := k.encode()
		if err != nil || len(b) > loader.SavedBytes {
			t.Fatalf("%d bytes, %v", len(b), err)
		}
		if left := len(k.Session.Failed); left != before {
			t.Errorf("%d attempts of %d are left with names of %d bytes", left, before, names)
		}
		got, err := decodeKept(append(b, make([]byte, loader.SavedBytes-len(b))...))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(k, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Error(diff)
		}
	}
	for _, bad := range [][]byte{nil, make([]byte, loader.SavedBytes), {0xff}, []byte("text")} {
		if k, err := decodeKept(bad); err == nil {
			t.Errorf("%q is read as %+v", bad, k)
		}
	}
}

func FuzzKept(f *testing.F) {
	b, err := someKept(3).encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := decodeKept(b)
		if err != nil {
			return
		}
		if _, err := k.encode(); err != nil {
			t.Error(err)
		}
	})
}
