// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A segment that comes when its connection is gone takes a pick, unless the
// connection's end was told not long ago.
func TestStraysTakeNoPick(t *testing.T) {
	for _, c := range []struct {
		name          string
		told          bool
		ago           time.Duration
		picked, stray uint64
	}{
		{"not told", false, 0, 2, 0},
		{"told", true, 0, 1, 1},
		{"told 3 s ago", true, 3 * time.Second, 1, 1},
		{"told 5 s ago", true, 5 * time.Second, 2, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			inNamespace(t, func(t *testing.T) {
				d := startDispatch(t, pickLife)
				b := newTestBoard(t, d)
				b.Open(counting(70, 5), time.Time{})
				l, at := listen(t, netip.AddrPortFrom(lo4, 0))
				must(t, 0, d.SetListener(at, false, b))
				fd := dial(t, at, 0)
				defer unix.Close(fd)
				conn, client, server := accept(t, l)
				if id, ok := d.Redeem(client, server); !ok || id != 70 {
					t.Fatalf("redeemed %d, %v", id, ok)
				}
				f := newForger(t, fd)
				if c.told {
					d.Ended(client, server)
					key := tupleOf(client, server)
					*d.ended.at(uint32(mix(&key)) & (d.ended.entries - 1)) -= uint64(c.ago) >> 20
				}
				must(t, 0, reset(&conn))
				must(t, 0, f.send(nil, 0, 0))
				if n := d.Counts(); n.Picked != c.picked || n.Stray != c.stray {
					t.Errorf("counts %+v", n)
				}
			})
		})
	}
}

// A client that comes back from its port meanwhile has no pick, and is served:
// its pick is made at accept. Others aren't touched.
func TestBackFromTheSamePort(t *testing.T) {
	for _, lo := range []netip.Addr{lo4, lo6} {
		inNamespace(t, func(t *testing.T) {
			d := startDispatch(t, pickLife)
			b := newTestBoard(t, d)
			b.Open(counting(70, 5), time.Time{})
			l, at := listen(t, netip.AddrPortFrom(lo, 0))
			must(t, 0, d.SetListener(at, false, b))
			want := []bool{true, false, true}
			var from uint16
			for i, picked := range want {
				if i == 2 {
					from = 0 // somebody else
				}
				fd := dial(t, at, from)
				conn, client, server := accept(t, l)
				if id, ok := d.Redeem(client, server); ok != picked {
					t.Errorf("connection %d: redeemed %d, %v", i, id, ok)
				}
				from = client.Port()
				d.Ended(client, server)
				must(t, 0, reset(&fd))
				must(t, 0, unix.Close(conn))
			}
			if n := d.Counts(); n.Picked != 2 || n.Stray != 1 {
				t.Errorf("counts %+v", n)
			}
		})
	}
}
