// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

var (
	lo4   = netip.MustParseAddr("127.0.0.1")
	lo6   = netip.MustParseAddr("::1")
	wild4 = netip.IPv4Unspecified()
	wild6 = netip.IPv6Unspecified()
)

func startDispatch(t *testing.T, life time.Duration) *Dispatch {
	t.Helper()
	needDispatch(t)
	d := must1(t, func() (*Dispatch, error) { return newDispatch(zerolog.Nop(), life) })
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func newTestBoard(t *testing.T, d *Dispatch) *Board {
	t.Helper()
	b, err := d.NewBoard()
	must(t, 0, err)
	return b
}

// counting is picks numbered from first.
func counting(first uint32, n int) []uint32 {
	ids := make([]uint32, n)
	for i := range ids {
		ids[i] = first + uint32(i)
	}
	return ids
}

// Who connects gets the picks of the most specific listener there is.
func TestDispatchFindsListener(t *testing.T) {
	for _, c := range []struct {
		name   string
		listen netip.Addr // what is set
		any    bool
		dial   netip.Addr
		found  bool
	}{
		{"v4 exact", lo4, false, lo4, true},
		{"v4 other address", netip.MustParseAddr("127.0.0.2"), false, lo4, false},
		{"v4 wildcard", wild4, false, lo4, true},
		{"v6 exact", lo6, false, lo6, true},
		{"v6 wildcard", wild6, false, lo6, true},
		{"v6 only takes no v4", wild6, false, lo4, false},
		{"v4 takes no v6", wild4, false, lo6, false},
		{"both, over v4", wild6, true, lo4, true},
		{"both, over v6", wild6, true, lo6, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			inNamespace(t, func(t *testing.T) {
				d := startDispatch(t, pickLife)
				b := newTestBoard(t, d)
				b.Open(counting(70, 5), time.Time{})
				l, at := listen(t, netip.AddrPortFrom(c.dial, 0))
				set := netip.AddrPortFrom(c.listen, at.Port())
				must(t, 0, d.SetListener(set, c.any, b))
				fd := dial(t, at, 0)
				defer unix.Close(fd)
				conn, client, server := accept(t, l)
				defer unix.Close(conn)
				id, ok := d.Redeem(client, server)
				if ok != c.found || ok && id != 70 {
					t.Fatalf("redeemed %d, %v; counts %+v", id, ok, d.Counts())
				}
				if _, again := d.Redeem(client, server); again {
					t.Error("a pick was redeemed twice")
				}
				must(t, 0, d.DeleteListener(set, c.any))
				must(t, 0, d.DeleteListener(set, c.any)) // nothing there: no error
				fd2 := dial(t, at, 0)
				defer unix.Close(fd2)
				conn2, client, server := accept(t, l)
				defer unix.Close(conn2)
				if _, ok := d.Redeem(client, server); ok {
					t.Error("a deleted listener still picks")
				}
			})
		})
	}
}

// The exact address goes before the wildcard.
func TestDispatchPrefersExact(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		d := startDispatch(t, pickLife)
		wide := newTestBoard(t, d)
		narrow := newTestBoard(t, d)
		wide.Open(counting(100, 5), time.Time{})
		narrow.Open(counting(200, 5), time.Time{})
		l, at := listen(t, netip.AddrPortFrom(wild4, 0))
		must(t, 0, d.SetListener(at, false, wide))
		must(t, 0, d.SetListener(netip.AddrPortFrom(lo4, at.Port()), false, narrow))
		for _, c := range []struct {
			to   string
			want uint32
		}{{"127.0.0.1", 200}, {"127.0.0.2", 100}} {
			fd := dial(t, netip.AddrPortFrom(netip.MustParseAddr(c.to), at.Port()), 0)
			conn, client, server := accept(t, l)
			if id, ok := d.Redeem(client, server); !ok || id != c.want {
				t.Errorf("%s: redeemed %d, %v instead of %d", c.to, id, ok, c.want)
			}
			unix.Close(fd)
			unix.Close(conn)
		}
	})
}

// Picks come in the window's order, each once, with and without SYN cookies;
// under those the last ACK runs the program a second time.
func TestDispatchOrder(t *testing.T) {
	for _, cookies := range []string{"1", "2"} {
		t.Run("tcp_syncookies="+cookies, func(t *testing.T) {
			inNamespace(t, func(t *testing.T) {
				must(t, 0, writeSysctl("net/ipv4/tcp_syncookies", cookies))
				d := startDispatch(t, pickLife)
				b := newTestBoard(t, d)
				l, at := listen(t, netip.AddrPortFrom(lo4, 0))
				must(t, 0, d.SetListener(at, false, b))
				const n = 300
				b.Open(counting(1000, n), time.Time{})
				var got []uint32
				for range n {
					fd := dial(t, at, 0)
					conn, client, server := accept(t, l)
					id, ok := d.Redeem(client, server)
					if !ok {
						t.Fatalf("no pick; counts %+v", d.Counts())
					}
					got = append(got, id)
					unix.Close(fd)
					unix.Close(conn)
				}
				if want := counting(1000, n); !slices.Equal(got, want) {
					t.Errorf("picks %v instead of %v", got, want)
				}
				c := d.Counts()
				if c.Picked != n || (c.Remembered != 0) != (cookies == "2") {
					t.Errorf("counts %+v", c)
				}
				if taken := b.Close(); taken != n {
					t.Errorf("%d taken instead of %d", taken, n)
				}
			})
		})
	}
}

// An end of the window, a closed one and a new one: who gets no pick is
// served all the same, and no pick of an old window is counted into a new.
func TestDispatchWindows(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		d := startDispatch(t, pickLife)
		b := newTestBoard(t, d)
		l, at := listen(t, netip.AddrPortFrom(lo4, 0))
		must(t, 0, d.SetListener(at, false, b))
		connect := func() (uint32, bool) {
			fd := dial(t, at, 0)
			defer unix.Close(fd)
			conn, client, server := accept(t, l)
			defer unix.Close(conn)
			return d.Redeem(client, server)
		}
		want := func(what string, id uint32, ok bool) {
			t.Helper()
			if gotID, gotOK := connect(); gotOK != ok || ok && gotID != id {
				t.Errorf("%s: redeemed %d, %v instead of %d, %v", what, gotID, gotOK, id, ok)
			}
		}
		want("never opened", 0, false)
		b.Open([]uint32{1, 2, 3}, time.Time{})
		want("first", 1, true)
		if i, ok := b.Take(); !ok || i != 1 {
			t.Errorf("userspace took %d, %v", i, ok)
		}
		want("after userspace", 3, true)
		want("past the end", 0, false)
		if _, ok := b.Take(); ok {
			t.Error("userspace took a pick past the end")
		}
		if n := b.Close(); n != 3 {
			t.Errorf("%d taken instead of 3", n)
		}
		if n := b.Close(); n != 0 {
			t.Errorf("%d taken from a closed window", n)
		}
		want("closed", 0, false)
		for round := range uint32(4) {
			b.Open([]uint32{10 + round, 20 + round}, time.Time{})
			want("reopened", 10+round, true)
			if n := b.Close(); n != 1 {
				t.Errorf("round %d: %d taken instead of 1", round, n)
			}
		}
		b.Open([]uint32{5}, time.Time{})
		b.Free()
		want("freed", 0, false)
	})
}

// From its bound on a window hands out nothing and counts nothing, whoever
// closes it when.
func TestDispatchBound(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		d := startDispatch(t, pickLife)
		b := newTestBoard(t, d)
		l, at := listen(t, netip.AddrPortFrom(lo4, 0))
		must(t, 0, d.SetListener(at, false, b))
		connect := func() bool {
			fd := dial(t, at, 0)
			defer unix.Close(fd)
			conn, client, server := accept(t, l)
			defer unix.Close(conn)
			_, ok := d.Redeem(client, server)
			return ok
		}
		for _, c := range []struct {
			name  string
			until time.Time
			picks bool
		}{
			{"none", time.Time{}, true},
			{"far", time.Now().Add(time.Hour), true},
			{"over", time.Now(), false},
			{"before the machine started", time.Now().Add(-200 * 365 * 24 * time.Hour), false},
		} {
			b.Open(counting(1, 5), c.until)
			if got := connect(); got != c.picks {
				t.Errorf("%s: a pick %v, want %v", c.name, got, c.picks)
			}
			if n := b.Close(); n != 0 != c.picks {
				t.Errorf("%s: %d taken", c.name, n)
			}
		}
		// It comes while the window is open.
		const n = 1 << 9
		until := time.Now().Add(300 * time.Millisecond)
		b.Open(counting(1, n), until)
		picked := 0
		for time.Now().Before(until) && connect() {
			picked++
		}
		time.Sleep(time.Until(until))
		if connect() {
			t.Error("a pick past the bound")
		}
		if got := b.Close(); got != picked || picked == 0 {
			t.Errorf("%d taken, %d picked", got, picked)
		}
	})
}

// A pick that is too old is no pick, neither to the program nor to Redeem,
// and Sweep deletes it and no other.
func TestDispatchAge(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		const life = 150 * time.Millisecond
		d := startDispatch(t, life)
		b := newTestBoard(t, d)
		l, at := listen(t, netip.AddrPortFrom(lo4, 0))
		must(t, 0, d.SetListener(at, false, b))
		b.Open(counting(1, 100), time.Time{})
		connect := func() (client, server netip.AddrPort) {
			fd := dial(t, at, 0)
			defer unix.Close(fd)
			conn, client, server := accept(t, l)
			unix.Close(conn)
			return client, server
		}
		client, server := connect()
		time.Sleep(2 * life)
		if id, ok := d.Redeem(client, server); ok {
			t.Errorf("a pick of long ago was redeemed: %d", id)
		}
		connect()
		time.Sleep(2 * life)
		d.Sweep()
		client, server = connect()
		d.Sweep()
		n := 0
		var key, val []byte
		for it := d.objs.Remembered.Iterate(); it.Next(&key, &val); {
			n++
		}
		if n > 1 {
			t.Errorf("%d picks are left after a sweep", n)
		}
		if id, ok := d.Redeem(client, server); n == 1 && (!ok || id != 3) {
			t.Errorf("redeemed %d, %v instead of 3", id, ok)
		}
	})
}

// Redeem does the same where the kernel has no call that does both.
func TestRedeemTwoSteps(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		d := startDispatch(t, pickLife)
		d.twoStep.Store(true)
		b := newTestBoard(t, d)
		l, at := listen(t, netip.AddrPortFrom(lo4, 0))
		must(t, 0, d.SetListener(at, false, b))
		b.Open(counting(9, 3), time.Time{})
		fd := dial(t, at, 0)
		defer unix.Close(fd)
		conn, client, server := accept(t, l)
		defer unix.Close(conn)
		if id, ok := d.Redeem(client, server); !ok || id != 9 {
			t.Errorf("redeemed %d, %v", id, ok)
		}
		if _, ok := d.Redeem(client, server); ok {
			t.Error("redeemed twice")
		}
	})
}

func BenchmarkRedeem(b *testing.B) {
	needDispatch(b)
	d, err := NewDispatch(zerolog.Nop())
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	client, server := netip.MustParseAddrPort("198.18.0.1:4000"), netip.MustParseAddrPort("198.18.0.2:80")
	b.ReportAllocs()
	for b.Loop() {
		d.Redeem(client, server)
	}
}
