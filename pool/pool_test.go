// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"net/netip"
	"testing"
)

func TestAddr(t *testing.T) {
	at := func(s string) Addr { return Addr{AddrPort: netip.MustParseAddrPort(s)} }
	for _, c := range []struct {
		addr          Addr
		name, dialled string
	}{
		{at("198.18.0.1:80"), "198.18.0.1:80", "198.18.0.1:80"},
		{at("[fd00::1]:80"), "[fd00::1]:80", "[fd00::1]:80"},
		{at("198.18.0.1:0"), "198.18.0.1", "198.18.0.1:30007"},
		{at("[fd00::1]:0"), "[fd00::1]", "[fd00::1]:30007"},
		{Addr{Unix: "/run/x"}, "unix:/run/x", "unix:/run/x"},
		{Addr{Name: "db:80"}, "db:80", "db:80"},
	} {
		want(t, "name", c.addr.String(), c.name)
		want(t, "dialled", c.addr.Dialled(30007).String(), c.dialled)
	}
}
